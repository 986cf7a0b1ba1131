"""A model's folder: `model.safetensors`, and in `adapter/` what was trained on it where the language model is frozen.

Adapters stay adapters: SFT, GRPO and the controls share one `model.safetensors` to the byte, and what each has learnt is
float32 in PEFT's own format. Merged into bfloat16 weights, a step of RL would be rounded away.

A CPU computes bfloat16 several times slower than float32, in which the same weights are exact: frozen weights are read as
bfloat16, held as float32 there, and written as bfloat16 again.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from r1pipe.errors import MissingError, ModelError
from r1pipe.files import write_json
from r1pipe.models.r1.configuration import R1Config
from r1pipe.models.r1.modeling import R1ForConditionalGeneration

ADAPTER = "adapter"
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAME = "default"

Trainable = R1ForConditionalGeneration | PeftModel
"""A model to train: whole, or frozen with adapters."""


def load_trainable(folder: Path) -> Trainable:
    """The model of a folder, its adapters ready to be trained further; each weight in the dtype of its role.

    Raises:
        MissingError: if the folder holds no model, or a damaged one.
        ModelError: if the model is of another architecture, or the adapter was trained on another model.
    """
    base = _base(folder)
    if not (folder / ADAPTER).is_dir():
        return for_this_machine(base)
    config = LoraConfig.from_pretrained(str(folder / ADAPTER))
    config.inference_mode = False
    mark = fingerprint(_frozen(base))
    model = get_peft_model(for_this_machine(base), config, adapter_name=_NAME)
    _read_adapter(model, folder / ADAPTER / _WEIGHTS, mark)
    return model


def for_this_machine(model: R1ForConditionalGeneration) -> R1ForConditionalGeneration:
    """The model with its frozen weights as float32 where there is no GPU."""
    return model if torch.cuda.is_available() else model.float()


def load(folder: Path) -> R1ForConditionalGeneration:
    """The model of a folder, to be asked; its adapters are in place and in float32. Errors as in `load_trainable`."""
    return plain(load_trainable(folder)).eval().requires_grad_(False)


def plain(model: nn.Module) -> R1ForConditionalGeneration:
    """The model itself, in PEFT's wrapper or not."""
    found = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(found, R1ForConditionalGeneration):
        raise TypeError(f"Expected 3D-R1 or adapters on it, found {type(found).__name__}.")
    return found


def save(model: Trainable, folder: Path) -> None:
    """Write what `load_trainable` reads."""
    base = plain(model)
    frozen = _frozen(base)
    base.save_pretrained(folder, state_dict=dict(frozen))  # which it empties
    if not isinstance(model, PeftModel):
        return
    learnt = get_peft_model_state_dict(model, adapter_name=_NAME, save_embedding_layers=False)
    learnt = {name: weights.detach().float().cpu().contiguous() for name, weights in learnt.items()}
    (folder / ADAPTER).mkdir()
    save_file(learnt, folder / ADAPTER / _WEIGHTS, metadata={"base": fingerprint(frozen)})
    # Sets have no order, and where the model lies on this machine is nobody's business.
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in model.peft_config[_NAME].to_dict().items()}
    write_json(folder / ADAPTER / _CONFIG, config | {"base_model_name_or_path": None, "inference_mode": True})


def _frozen(base: R1ForConditionalGeneration) -> dict[str, Tensor]:
    """The weights without adapters, under the names and in the dtypes that they have without them."""
    dtype = getattr(torch, base.config.frozen_dtype)
    found = {}
    for name, weights in base.state_dict().items():
        if (
            ".lora_" in name
            or ".modules_to_save." in name
            or (name == "lm_head.weight" and base.config.tie_word_embeddings)
        ):
            continue
        is_language = name.startswith(("model.language_model.", "lm_head."))
        own = name.replace(".original_module.", ".").replace(".base_layer.", ".")
        found[own] = (weights.to(dtype) if is_language else weights).cpu().contiguous()
    return found


def merge(source: Path, target: Path) -> None:
    """Write the model of `source` to `target` without adapters: all of it float32, so that nothing learnt is rounded."""
    model = load_trainable(source)
    tied = plain(model).float().config.tie_word_embeddings
    merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
    # PEFT finds the head with its trained rows in it, which is another matrix, and calls the two untied.
    merged.config.tie_word_embeddings = tied
    merged.config.frozen_dtype = "float32"
    merged.save_pretrained(target)


def fingerprint(model: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that tell models apart: over the first numbers of every weight, in float32."""
    digest = hashlib.sha256()
    for name, weights in sorted(model.items()):
        digest.update(f"{name} {tuple(weights.shape)}".encode())
        digest.update(weights.flatten()[:16].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _base(folder: Path) -> R1ForConditionalGeneration:
    if not (folder / "config.json").is_file():
        raise MissingError(f"Expected a model in {folder}, found no config.json there.")
    config = R1Config.from_pretrained(folder)
    if type(config).model_type != R1Config.get_config_dict(folder)[0].get("model_type"):
        found = R1Config.get_config_dict(folder)[0].get("model_type")
        raise ModelError(f"Expected a model of type {R1Config.model_type} in {folder}, found {found!r}.")
    try:
        return R1ForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, config.frozen_dtype))
    except (OSError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise MissingError(f"Expected whole weights in {folder}, found files that do not load: {first}.") from None


def _read_adapter(model: PeftModel, path: Path, base: str) -> None:
    if not path.is_file():
        raise MissingError(f"Expected adapter weights at {path}, found no such file.")
    try:
        with safe_open(path, "pt") as file:
            trained_on = (file.metadata() or {}).get("base")
        found = load_file(path)
    except SafetensorError as error:
        raise MissingError(f"Expected adapter weights in {path}, found a file that does not load: {error}.") from None
    wanted = get_peft_model_state_dict(model, adapter_name=_NAME, save_embedding_layers=False)
    fits = wanted.keys() == found.keys() and all(found[name].shape == wanted[name].shape for name in wanted)
    if trained_on != base or not fits:
        raise ModelError(
            f"Expected an adapter trained on the model beside it (fingerprint {base}) in {path}, found one of {trained_on or 'an unnamed model'}."
        )
    set_peft_model_state_dict(model, found, adapter_name=_NAME)
