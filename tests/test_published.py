"""Checkpoints as their authors publish them, small and random: written by transformers and open_clip, read by us."""

from dataclasses import asdict

import numpy as np
import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_config_for_hf
from open_clip.transform import PreprocessCfg
from safetensors.torch import load_file, save_file
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)
from transformers.models.siglip2 import Siglip2ImageProcessor

from r1pipe.errors import ModelError
from r1pipe.models.encoders.clip import CONFIG, WEIGHTS, Clip
from r1pipe.models.encoders.depth import DepthEncoder
from r1pipe.models.encoders.image import ImageEncoder

TOWER = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = TOWER | {"vocab_size": 50, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
CLIP_CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)


def siglip(folder):
    """As google/siglip2-*-patch16-256: both towers, of type `siglip`."""
    vision = TOWER | {"image_size": 32, "patch_size": 16}
    model = SiglipModel(SiglipConfig(text_config=TEXT, vision_config=vision)).eval()
    processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    return write(folder, model, processor)


def naflex(folder):
    """As google/siglip2-*-patch16-naflex: both towers, of type `siglip2`."""
    vision = TOWER | {"patch_size": 16, "num_patches": 16}
    model = Siglip2Model(Siglip2Config(text_config=TEXT, vision_config=vision)).eval()
    return write(folder, model, Siglip2ImageProcessor(patch_size=16, max_num_patches=16))


def depth_anything(folder):
    """As depth-anything/Depth-Anything-V2-*-hf: DINOv2 and a head of relative depth."""
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=70,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    head = {"neck_hidden_sizes": [8, 16, 16, 16], "fusion_hidden_size": 16, "head_hidden_size": 8}
    sizes = {"patch_size": 14, "reassemble_hidden_size": 32, "reassemble_factors": [4, 2, 1, 0.5]}
    model = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **head, **sizes)).eval()
    size = {"height": 70, "width": 70}
    processor = DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3)
    return write(folder, model, processor)


def write(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def clip(folder):
    """As laion/CLIP-* and timm/vit_*_clip_*: what open_clip's `push_to_hf_hub` writes."""
    model = open_clip.CLIP(**CLIP_CONFIG).eval()
    open_clip.model.set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=(32, 32))))
    folder.mkdir()
    save_config_for_hf(model, folder / CONFIG, CLIP_CONFIG)
    save_file(model.state_dict(), folder / WEIGHTS)
    return model


@pytest.mark.parametrize("publish", [siglip, naflex])
def test_the_vision_tower_of_both_is_read_and_the_rest_left(publish, rgb, tmp_path):
    model, processor = publish(tmp_path)
    with torch.inference_mode():
        expected = model.vision_model(**processor(images=list(rgb), return_tensors="pt")).pooler_output
    found = ImageEncoder.load(tmp_path)
    np.testing.assert_allclose(found.encode(rgb), expected.numpy(), atol=1e-5)
    found.save(tmp_path / "again")
    np.testing.assert_array_equal(ImageEncoder.load(tmp_path / "again").encode(rgb), found.encode(rgb))


def test_depth_anything_gives_the_states_of_its_backbone_and_relative_depth(rgb, tmp_path):
    model, processor = depth_anything(tmp_path)
    wide = np.concatenate([rgb, rgb], axis=2)
    pixels = processor(images=list(wide), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        states = model.backbone(pixels).feature_maps[-1]
    found = DepthEncoder.load(tmp_path)
    assert pixels.shape == (3, 3, 28, 70) and not found.is_metric
    np.testing.assert_allclose(found.encode(wide), states[:, 1:].mean(dim=1).numpy(), atol=1e-5)
    assert found.depth(wide).shape == (3, 32, 64)


def test_a_folder_of_open_clip_gives_what_open_clip_gives(rgb, tmp_path):
    model = clip(tmp_path / "clip")
    found = Clip.load_published(f"local-dir:{tmp_path / 'clip'}", None)
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'clip'}")
    tokens = open_clip.tokenize(["a red chair", "a lamp"])
    with torch.inference_mode():
        texts = model.encode_text(tokens, normalize=True)
        images = theirs.eval().encode_image(found.inputs(rgb).cpu(), normalize=True)
    np.testing.assert_allclose(found.encode_text(["a red chair", "a lamp"]), texts.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.encode_images(rgb), images.numpy(), atol=1e-5)
    found.save(tmp_path / "again")
    np.testing.assert_array_equal(Clip.load(tmp_path / "again").encode_images(rgb), found.encode_images(rgb))


def drop(weights, name):
    del weights[name]


def add(weights, name):
    weights["vision_model.surplus"] = torch.zeros(2)


def reshape(weights, name):
    weights[name] = torch.zeros(7)


PUBLISHED = {
    "siglip": (siglip, ImageEncoder.load, "vision_model.post_layernorm.weight"),
    "naflex": (naflex, ImageEncoder.load, "vision_model.post_layernorm.weight"),
    "depth": (depth_anything, DepthEncoder.load, "backbone.layernorm.weight"),
    "clip": (clip, Clip.load, "visual.ln_post.weight"),
}


@pytest.mark.parametrize("harm", [drop, add, reshape])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_checkpoint_that_does_not_match_its_configuration_is_an_error(name, harm, tmp_path):
    publish, load, weight = PUBLISHED[name]
    folder = tmp_path / "published"
    publish(folder)
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    harm(weights, weight)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"^Expected .*weights.*found.*\.$"):
        load(folder)


@pytest.mark.parametrize(
    ("model", "pretrained", "other"),
    [("ViT-L-14", "openai", "ViT-L-14-quickgelu"), ("ViT-B-32", "openai", "ViT-B-32-quickgelu")],
)
def test_weights_of_another_activation_are_refused_before_they_are_fetched(model, pretrained, other):
    with pytest.raises(ModelError, match=f"Expected CLIP {other} for the weights {pretrained}, found {model},"):
        Clip.load_published(model, pretrained)


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_the_profiles_name_weights_that_open_clip_has_for_their_model(scale):
    from tools.compose import composed

    section = composed([f"scale={scale}"])["backbones"]["clip"]
    tag = open_clip.get_pretrained_cfg(section["model"], section["pretrained"])
    config = open_clip.get_model_config(section["model"])
    assert tag and tag.get("quick_gelu", False) == config.get("quick_gelu", False)
