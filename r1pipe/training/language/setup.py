"""What SFT, GRPO and the control share: the model to start from, adapters, trainer settings, saving."""

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

from r1pipe.files import whole
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1 import R1Config, R1ForConditionalGeneration, R1Processor
from r1pipe.models.r1.language import look_for_likes, text_config
from r1pipe.models.r1.processing import special_ids
from r1pipe.params.model import Model
from r1pipe.params.training import Lora, Training

PARTS = ("object_projector", "point_projector", "view_projector", "depth_projector", "view_selector")
"""What is always trained in full beside adapters."""


def build_model(
    model: Model, tokenizer: PreTrainedTokenizerBase, features: SceneFeatures, *, view_weight_pull: float, seed: int
) -> R1ForConditionalGeneration:
    """A model whose pack fits these features: pretrained language where params name one, small and fresh otherwise."""
    torch.manual_seed(seed)
    language = text_config(model, tokenizer)
    config = R1Config(
        language,
        num_objects=model.num_objects,
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
        **special_ids(tokenizer),
    )
    built = R1ForConditionalGeneration(config)
    if model.language is None:
        look_for_likes(built)
    else:
        built.load_language_model(model.language, model.revision)
    built.generation_config.eos_token_id = tokenizer.eos_token_id
    built.generation_config.pad_token_id = tokenizer.pad_token_id
    return built


def lora_config(lora: Lora | None, num_blocks: int) -> LoraConfig | None:
    """Adapters on the last blocks of the language model; projectors and selector are trained in full."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=list(range(num_blocks - lora.last_blocks, num_blocks)),
        layers_pattern="layers",
        modules_to_save=list(PARTS),
    )


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


def share_pull(model: R1ForConditionalGeneration, settings: TrainingArguments) -> None:
    """Let the passes of one optimizer step pull at the view weights together as much as a single one would."""
    model.model.view_selector.pull /= settings.gradient_accumulation_steps


def save(trainer: Trainer, processor: R1Processor, folder: Path) -> None:
    """Write model and processor, adapters merged, whole; the first process does."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.accelerator.is_main_process:
        merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
        with whole(folder) as draft:
            merged.save_pretrained(draft)
            processor.save_pretrained(draft)
    trainer.accelerator.wait_for_everyone()
