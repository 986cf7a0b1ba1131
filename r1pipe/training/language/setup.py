"""What SFT, GRPO and the control share: the model to start from, adapters, learning rates, trainer settings, saving."""

import sys
from pathlib import Path
from typing import Any, cast

import torch
import trl.trainer.utils
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

from r1pipe.files import whole
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1 import R1Config, R1ForConditionalGeneration, R1Processor
from r1pipe.models.r1.language import (
    added_tokens,
    load_pretrained,
    look_for_likes,
    start_from_words,
    text_config,
    token_ids,
)
from r1pipe.models.r1.processing import special_ids
from r1pipe.models.r1.selector import ViewSelector
from r1pipe.models.r1.weights import Trainable, save
from r1pipe.params.model import Model
from r1pipe.params.training import Lora, Training
from r1pipe.training.language.parts import idle_modules, learning_rate, part_of, trained_modules

# TRL's fused head leaves prompts out where it runs on Triton, and scores every position elsewhere, for devices that
# compile for each shape anew. A CPU does not: a pretrained vocabulary took 5 of a step's 12 seconds.
trl.trainer.utils._use_triton = lambda device: True


def build_model(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    features: SceneFeatures,
    *,
    lora: Lora | None,
    view_weight_pull: float,
    seed: int,
) -> R1ForConditionalGeneration:
    """A model whose pack fits these features: pretrained language where params name one, small and fresh otherwise.

    Where adapters will be trained on it, its added tokens have rows of their own, and its frozen weights their dtype.
    """
    torch.manual_seed(seed)
    language = text_config(model, tokenizer)
    rows = added_tokens(model.num_objects) if model.language is not None and lora is not None else []
    config = R1Config(
        language,
        num_objects=model.num_objects,
        identifiers=model.identifiers,
        object_width=features.object_features.shape[1],
        num_points=features.point_features.shape[0],
        point_width=features.point_features.shape[1],
        num_candidates=features.view_features.shape[0],
        num_views=model.num_views,
        view_width=features.view_features.shape[1],
        depth_width=features.depth_features.shape[1],
        modalities=model.modalities,
        view_strategy=model.view_strategy,
        view_weights=model.view_weights,
        view_weight_pull=view_weight_pull,
        tie_word_embeddings=language.tie_word_embeddings,
        trained_tokens=token_ids(tokenizer, rows),
        frozen_dtype=model.frozen_dtype,
        instruct=model.language is not None,
        **special_ids(tokenizer),
    )
    built = R1ForConditionalGeneration(config)
    if model.language is None:
        look_for_likes(built)
    else:
        built.load_language_model(load_pretrained(model))
        start_from_words(built, tokenizer)
    built.freeze_language_model()
    built.generation_config.eos_token_id = tokenizer.eos_token_id
    built.generation_config.pad_token_id = tokenizer.pad_token_id
    return built


def adapt(model: Trainable, lora: Lora | None, *, seed: int) -> Trainable:
    """The model with fresh adapters on the last blocks of its frozen language model; one that has some keeps them.

    Projectors, selector and the rows of added tokens are trained in full, but for those that the model's settings leave out.
    """
    if isinstance(model, PeftModel):
        return model
    for name in idle_modules(model):
        model.model.get_submodule(name).requires_grad_(False)
    if lora is None:
        return model
    torch.manual_seed(seed)
    num_blocks = model.config.text_config.num_hidden_layers
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=list(range(num_blocks - lora.last_blocks, num_blocks)),
        layers_pattern="layers",
        modules_to_save=trained_modules(model),
    )
    return get_peft_model(model, config)


def by_part(trainer: Trainer, training: Training, *, adam_beta2: float, adam_epsilon: float) -> torch.optim.Optimizer:
    """AdamW with a learning rate a part, weight decay where transformers has it.

    Every token of every completion pulls at the few gains of normalisation layers, so what they are pulled to stands out
    of the noise that keeps the learning rate of all other weights low; they have Adam's own epsilon where they have a
    learning rate of their own.
    """
    model = cast("torch.nn.Module", trainer.model)
    decaying = set(trainer.get_decay_parameter_names(model))
    groups: dict[tuple[str, float, float, float], list[torch.nn.Parameter]] = {}
    for name, weights in model.named_parameters():
        if not weights.requires_grad:
            continue
        is_gain = "norm" in name and training.learning_rates.gains is not None
        decay = trainer.args.weight_decay if name in decaying else 0.0
        key = (part_of(name), learning_rate(training, name), decay, 1e-8 if is_gain else adam_epsilon)
        groups.setdefault(key, []).append(weights)
    rows = [
        {"params": weights, "part": part, "lr": rate, "weight_decay": decay, "eps": epsilon}
        for (part, rate, decay, epsilon), weights in groups.items()
    ]
    return torch.optim.AdamW(rows, lr=training.learning_rate, betas=(0.9, adam_beta2), fused=True)


def trainer_settings(training: Training, work: Path, *, seed: int) -> dict[str, Any]:
    """Keyword arguments that `SFTConfig` and `GRPOConfig` have in common.

    An optimizer step takes `batch_size` sequences whatever the number of processes and of forward passes.
    """
    on_cpu = not torch.cuda.is_available()
    processes = PartialState(cpu=on_cpu).num_processes
    at_once = training.sequences_a_pass(processes)
    return {
        "output_dir": str(work),
        "max_steps": training.max_steps,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": training.batch_size // processes // at_once,
        "learning_rate": training.learning_rate,
        "bf16": training.bf16,
        "gradient_checkpointing": training.gradient_checkpointing,
        "save_steps": training.save_steps,
        "save_total_limit": 2,  # the one before stays until the new one is whole
        "seed": seed,
        "data_seed": seed,
        "use_cpu": on_cpu,
        "report_to": [],
        "disable_tqdm": not sys.stderr.isatty(),
    }


def share_pull(model: torch.nn.Module, settings: TrainingArguments) -> None:
    """Let the passes of one optimizer step pull at the view weights together as much as a single one would."""
    for module in model.modules():
        if isinstance(module, ViewSelector):
            module.pull /= settings.gradient_accumulation_steps


def save_trained(trainer: Trainer, processor: R1Processor, folder: Path) -> None:
    """Write model and processor, whole; the first process does."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.accelerator.is_main_process:
        with whole(folder) as draft:
            save(model, draft)
            processor.save_pretrained(draft)
    trainer.accelerator.wait_for_everyone()
