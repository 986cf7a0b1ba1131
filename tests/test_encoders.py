"""The CLIP, image and depth encoders: saving, loading, errors, texts of any length, and what training teaches them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from r1pipe.errors import MissingError, ModelError
from r1pipe.geometry import Box
from r1pipe.models.encoders.clip import CONFIG, WEIGHTS, Clip
from r1pipe.models.encoders.depth import DepthEncoder
from r1pipe.models.encoders.image import ImageEncoder
from r1pipe.params.encoders import ClipBackbone, DepthBackbone, ImageBackbone
from r1pipe.scenes.scene import Scene, SceneObject
from r1pipe.training.encoders.clip import evaluate_clip, train_clip
from r1pipe.training.encoders.depth import evaluate_depth, silog, train_depth
from r1pipe.training.encoders.image import evaluate_image, train_image
from r1pipe.training.encoders.pairs import Shown, phrase, short_texts, shown
from r1pipe.views.cameras import Cameras
from r1pipe.views.views import Views

COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 200), "yellow": (230, 220, 60)}
SIZE = 32
CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": SIZE,
        "patch_size": 16,
        "layers": 1,
        "width": 32,
        "head_width": 32,
        "pool_type": "avg",
    },
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "layers": 1, "width": 32, "heads": 1},
}


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 255, (3, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    built = Clip.new(CLIP_CONFIG)
    built.model.eval()
    return built


@pytest.fixture(scope="module")
def depth():
    torch.manual_seed(0)
    built = DepthEncoder.new(image_size=SIZE, patch_size=16, hidden_size=16, layers=4)
    built.model.eval()
    return built


@pytest.fixture(scope="module")
def image():
    torch.manual_seed(0)
    built = ImageEncoder.new(image_size=SIZE, patch_size=16, hidden_size=32, layers=1)
    built.model.eval()
    return built


def shapes(count, seed):
    """Crops of one bright square or bar on grey, with what can be said of them."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        colour, kind = rng.choice(list(COLOURS)), rng.choice(["box", "bar"])
        image = np.full((SIZE, SIZE, 3), rng.integers(90, 150), np.uint8)
        top, left = rng.integers(2, 12, 2)
        high, wide = (14, 14) if kind == "box" else (4, 18)
        image[top : top + high, left : left + wide] = COLOURS[colour]
        texts = (kind, str(colour), f"{colour} {kind}", f"a {colour} {kind} on the floor")
        images.append(Shown(image, texts, f"{colour} {kind}", str(kind)))
    return images


def clip_params(**changed):
    sizes = {"embed_dim": 32, "image_width": 32, "image_layers": 1, "text_width": 32, "text_layers": 1}
    values = {"source": "train", "model": None, "pretrained": None, "patch_size": 16, "context_length": 12} | sizes
    return ClipBackbone(**(values | {"steps": 80, "batch_size": 32, "learning_rate": 3e-3} | changed))


def transformer_params(kind, **changed):
    values = {"source": "train", "model": None, "revision": None, "hidden_size": 32, "layers": 1, "patch_size": 16}
    return kind(**(values | {"steps": 60, "batch_size": 16, "learning_rate": 3e-3} | changed))


def silent(_step, _loss):
    """Log nowhere."""


def test_clip_gives_the_same_vectors_after_saving_and_loading(clip, rgb, tmp_path):
    clip.save(tmp_path / "clip")
    loaded = Clip.load(tmp_path / "clip")
    assert loaded.dim == clip.dim == 16
    assert np.array_equal(loaded.encode_text(["a red chair"]), clip.encode_text(["a red chair"]))
    assert np.array_equal(loaded.encode_images(rgb), clip.encode_images(rgb))
    assert np.array_equal(loaded.encode_patches(rgb), clip.encode_patches(rgb))
    assert np.array_equal(
        Clip.load_published(f"local-dir:{tmp_path / 'clip'}", None).encode_images(rgb), clip.encode_images(rgb)
    )


def test_clip_vectors_have_unit_length_and_the_shapes_of_their_contract(clip, rgb):
    for vectors, shape in (
        (clip.encode_text(["red", "", "blue"]), (3, 16)),
        (clip.encode_images(rgb), (3, 16)),
        (clip.encode_patches(rgb), (3, 2, 2, 16)),
        (clip.encode_text([]), (0, 16)),
    ):
        assert vectors.shape == shape
        assert vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)


def test_a_text_longer_than_the_context_is_read_to_its_end(clip):
    long = "the room has a table and chairs and a lamp and a bed and a shelf and"
    assert not np.allclose(clip.encode_text([f"{long} red"]), clip.encode_text([f"{long} blue"]), atol=1e-4)


def test_a_long_text_is_the_mean_of_its_pieces(clip):
    first, second = "red " * 10, "blue " * 4  # one token a word, ten beside the two marks in a context of twelve
    parts = clip.encode_text([first, second]).sum(axis=0)
    assert np.allclose(clip.encode_text([first + second])[0], parts / np.linalg.norm(parts), atol=1e-5)


def test_the_batch_does_not_change_a_text(clip):
    texts = ["red", "a red chair " * 9, "blue"]
    assert np.allclose(clip.encode_text(texts)[1], clip.encode_text(texts[1:2])[0], atol=1e-5)


@pytest.mark.parametrize("name", ["image", "depth"])
def test_a_transformers_encoder_gives_the_same_rows_after_saving_and_loading(name, rgb, tmp_path, request):
    encoder = request.getfixturevalue(name)
    encoder.save(tmp_path / name)
    loaded = type(encoder).load(tmp_path / name)
    assert loaded.encode(rgb).shape == (3, encoder.hidden_size)
    assert np.array_equal(loaded.encode(rgb), encoder.encode(rgb))


@pytest.mark.parametrize("name", ["image", "depth"])
def test_weights_that_are_not_there_are_missing_and_never_random(name, tmp_path, request):
    encoder = request.getfixturevalue(name)
    with pytest.raises(MissingError, match="found none"):
        type(encoder).load(tmp_path / "nowhere")
    encoder.save(tmp_path / name)
    (tmp_path / name / "model.safetensors").unlink()
    with pytest.raises(MissingError, match="weights"):
        type(encoder).load(tmp_path / name)


@pytest.mark.parametrize("name", ["image", "depth"])
def test_a_checkpoint_without_its_processor_is_missing(name, tmp_path, request):
    encoder = request.getfixturevalue(name)
    encoder.save(tmp_path / name)
    (tmp_path / name / "preprocessor_config.json").unlink()
    with pytest.raises(MissingError, match="image processor"):
        type(encoder).load(tmp_path / name)


def drop(weights):
    weights.pop(sorted(weights)[0])


def add(weights):
    weights["surplus.weight"] = torch.zeros(2)


def reshape(weights):
    weights[sorted(weights)[0]] = torch.zeros(7)


@pytest.mark.parametrize(("harm", "word"), [(drop, "missing"), (add, "unexpected"), (reshape, "another shape")])
@pytest.mark.parametrize("name", ["image", "depth"])
def test_weights_that_do_not_match_the_configuration_are_an_error(name, harm, word, tmp_path, request):
    encoder = request.getfixturevalue(name)
    encoder.save(tmp_path / name)
    path = tmp_path / name / "model.safetensors"
    weights = load_file(path)
    harm(weights)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelError, match=word):
        type(encoder).load(tmp_path / name)


def test_another_kind_of_model_is_named(image, tmp_path):
    image.save(tmp_path / "image")
    with pytest.raises(ModelError, match=r"depth_anything .* found siglip_vision_model"):
        DepthEncoder.load(tmp_path / "image")


def test_clip_weights_that_are_missing_or_do_not_fit_are_errors(clip, tmp_path):
    with pytest.raises(MissingError):
        Clip.load(tmp_path / "nowhere")
    clip.save(tmp_path / "clip")
    config = json.loads((tmp_path / "clip" / CONFIG).read_text())
    config["model_cfg"]["embed_dim"] = 24
    (tmp_path / "clip" / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelError, match="weights of CLIP"):
        Clip.load(tmp_path / "clip")
    (tmp_path / "clip" / WEIGHTS).unlink()
    with pytest.raises(MissingError, match="open_clip_model"):
        Clip.load(tmp_path / "clip")


@pytest.mark.parametrize(
    ("model", "pretrained"), [("ViT-B-32", "no-such-tag"), ("ViT-Z", "openai"), ("ViT-B-32", None)]
)
def test_a_published_clip_that_open_clip_does_not_know_is_missing(model, pretrained):
    with pytest.raises(MissingError, match=model):
        Clip.load_published(model, pretrained)


def test_depth_features_are_hidden_states_and_not_the_picture(depth, rgb):
    before = depth.encode(rgb)
    assert before.shape == (3, depth.hidden_size)
    assert depth.depth(rgb).shape == (3, SIZE, SIZE)
    head = depth.model.head.conv3.bias
    kept = head.detach().clone()
    try:
        with torch.no_grad():
            head += 5
        assert np.array_equal(depth.encode(rgb), before)
    finally:
        with torch.no_grad():
            head.copy_(kept)


@pytest.mark.parametrize(
    ("caption", "label", "expected"),
    [
        ("this is a brown wooden chair . it is by the table .", "chair", "brown wooden chair"),
        ("a red chair next to a table", "table", "table"),
        ("the Coffee Table is low", "coffee table", "coffee table"),
        ("somewhere to sit", "couch", "couch"),
    ],
)
def test_a_phrase_is_the_label_with_its_adjectives(caption, label, expected):
    assert phrase(caption, label) == expected


def scene_and_views():
    """Two objects, one in each half of the only view."""
    xyz = np.array([[0, 0, 0], [1, 0, 0]], np.float32)
    objects = (SceneObject(4, "chair", 5, Box(0, 0, 0, 1, 1, 1)), SceneObject(7, "lamp", 35, Box(1, 0, 0, 1, 1, 1)))
    scene = Scene("scene0000_00", xyz, np.zeros((2, 3), np.uint8), np.array([4, 7], np.int32), objects)
    index = np.full((1, 40, 40), -1, np.int32)
    index[0, 4:20, 2:14], index[0, 4:20, 26:38] = 0, 1
    rgb = np.zeros((1, 40, 40, 3), np.uint8)
    rgb[index == 0], rgb[index == 1] = COLOURS["red"], COLOURS["blue"]
    cameras = Cameras(np.eye(4)[None], np.eye(3)[None], (40, 40))
    return scene, Views(scene.id, rgb, (index >= 0).astype(np.float32), index, np.zeros(1, bool), cameras)


def test_crops_show_their_object_and_views_carry_all_that_they_show():
    scene, views = scene_and_views()
    whole, chair = shown(scene, views, {(scene.id, 4): ["a red chair by the wall"]}, seed=0)
    assert whole.texts == ("chair", "lamp", "red", "red chair")
    assert (chair.phrase, chair.label, chair.attribute) == ("red chair", "chair", "red")
    assert "a red chair by the wall" in chair.texts
    assert chair.image.shape == (40, 40, 3)
    reddish = (chair.image[..., 0] > 150).mean()
    assert reddish > 0.3
    assert (chair.image[..., 2] < 150).all()  # nothing of the blue lamp


def test_without_captions_every_object_in_view_is_cropped_under_its_label():
    scene, views = scene_and_views()
    assert [image.phrase for image in shown(scene, views, {}, seed=0)] == ["", "chair", "lamp"]


def test_clip_learns_to_name_what_it_sees_and_keeps_short_answers_apart():
    images, texts = shapes(200, 1), short_texts([], shapes(200, 1))
    clip = train_clip(images, texts, clip_params(), seed=0, log=silent)
    found = evaluate_clip(clip, shapes(100, 2), texts)
    assert found["retrieval_r1"] > 0.7 > 0.3 > found["retrieval_r1_commonest"]
    red, same, blue = clip.encode_text(["red", "red", "blue"])
    assert red @ same > 0.999 > 0.5 > red @ blue


def test_the_same_seed_trains_the_same_bytes(tmp_path):
    images = shapes(40, 1)
    for name in ("a", "b"):
        torch.manual_seed(len(name) * 7)  # what the process drew before must not matter
        torch.rand(3 if name == "a" else 5)
        train_clip(images, ["red", "blue"], clip_params(steps=3), seed=5, log=silent).save(tmp_path / name)
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_the_image_tower_tells_classes_of_crops_it_has_not_seen():
    images = shapes(200, 1)
    clip = train_clip(images, short_texts([], images), clip_params(steps=60), seed=0, log=silent)
    encoder = train_image(images, clip, transformer_params(ImageBackbone), seed=0, log=silent)
    found = evaluate_image(encoder, images, shapes(100, 2))
    assert found["class_accuracy"] > 0.9 > 0.7 > found["class_accuracy_commonest"]
    assert found["attribute_accuracy"] > 0.8 > 0.5 > found["attribute_accuracy_commonest"]


def slopes(count, seed):
    """Views whose brightness tells their depth."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(1, 3, SIZE)[None, :, None] * rng.uniform(0.7, 1.5, (count, 1, 1)) * np.ones((1, 1, SIZE))
    rgb = np.repeat((depth * 50).astype(np.uint8)[..., None], 3, axis=-1)
    depth[:, :4] = 0  # nothing seen here
    return rgb, depth.astype(np.float32)


def test_the_depth_model_beats_the_best_constant():
    encoder = train_depth(*slopes(60, 1), transformer_params(DepthBackbone, layers=4), seed=0, log=silent)
    found = evaluate_depth(encoder, *slopes(20, 2))
    assert found["abs_rel"] < 0.5 * found["constant_abs_rel"]


def test_the_depth_loss_forgives_scale_in_part_and_leaves_out_what_was_not_seen():
    depth = torch.tensor([[[1.0, 2.0], [4.0, 0.0]]])
    assert silog(depth, depth) == 0
    doubled = silog(2 * depth, depth)
    assert torch.isclose(doubled, 0.5 * torch.tensor(2.0).log() ** 2)
