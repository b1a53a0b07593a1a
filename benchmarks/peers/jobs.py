"""A training job, and the command by which each contender runs it with the settings that suit it best."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.envs import python_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SIZE = 8  # samples an optimizer step
LONGEST = 2048  # tokens that every contender allows a sample; none of the mixes' is longer
RATE = 1e-4
RANK = 8
ALL_PARTS = ["vision", "projector", "language", "embeddings", "head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One pass of one contender over one mix: full fine-tuning of every weight in float32, or LoRA on the language model's linear layers.

    Args:
        contender: a key of `COMMANDS`.
        style: `order` (batches in the file's order, padded), `grouped` (like lengths together), `packed`.
        count: the step that runs under counters; 0 for a timed run.
        extra: the contender's own settings on top.
    """

    contender: str
    model: Path
    data: Path  # a mix's folder
    out: Path
    style: str = "order"
    size: int = SIZE
    lora: bool = False
    checkpointing: bool = False
    frozen: bool = False
    count: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def qwen(self) -> bool:
        """Whether it is the Qwen2.5-VL-shaped model."""
        return "qwen" in self.model.name

    @property
    def label(self) -> str:
        """`TRL, grouped`."""
        return CONTENDERS[self.contender] + ("" if self.style == "order" else f", {self.style}")


CONTENDERS = {
    "foveate": "Foveate",
    "trl": "TRL",
    "llamafactory": "LLaMA-Factory",
    "swift": "ms-swift",
    "automodel": "NeMo Automodel",
    "plain": "transformers + peft",
}


def foveate(job: Job) -> list[str]:
    """`foveate train recipe.yaml`, batches prepared in the training process as the peers do it."""
    parts = ALL_PARTS if not job.frozen else ["projector", "language", "embeddings", "head"]
    tuning: dict[str, Any] = {"type": "full", "parts": parts}
    if job.lora:
        tuning = {"type": "lora", "rank": RANK, "alpha": 2 * RANK, "parts": ["language"]}
    recipe: dict[str, Any] = {
        "model": {"id": str(job.model), "dtype": "float32", "offline": True},
        "tuning": tuning,
        "data": {"train": [{"path": str(job.data / "foveate.jsonl")}], "workers": 0},
        "batch": {"size": job.size, "pack": job.style == "packed"},
        "optim": {"lr": RATE, "schedule": "constant", "warmup": 0, "max_grad_norm": 1.0},
        "train": {"output": str(job.out / "run"), "epochs": 1, "gradient_checkpointing": job.checkpointing, "seed": 0},
    }
    for name, value in job.extra.items():
        section, _, key = name.partition(".")
        recipe.setdefault(section, {})[key] = value
    path = _write(job.out / "recipe.yaml", recipe)
    return [sys.executable, "-m", "foveate", "train", str(path), "--overwrite"]


def trl(job: Job) -> list[str]:
    """TRL's own command line; it packs no images. Only answers are scored, as with prompt and completion it does."""
    bin_ = python_of("trl").parent
    sampling = {"order": "sequential", "grouped": "group_by_length"}[job.style]
    options = _trainer(job) | {
        "model_name_or_path": job.model, "dataset_name": job.data / "trl", "max_length": LONGEST, "dtype": "float32",
        "train_sampling_strategy": sampling, "gradient_checkpointing": _yes(job.checkpointing), "num_train_epochs": 1,
    }  # fmt: skip
    if job.style == "grouped":
        options["remove_unused_columns"] = "false"  # else it takes away the lengths that it groups by
    if job.lora:
        options |= {"use_peft": "true", "lora_r": RANK, "lora_alpha": 2 * RANK, "lora_dropout": 0, "lora_target_modules": _targets(job)}
    return [str(bin_ / "trl"), "sft", *_flags(options | job.extra)]


def llamafactory(job: Job) -> list[str]:
    """`llamafactory-cli train`; it packs no images either."""
    config = _trainer(job) | dict(
        model_name_or_path=str(job.model), stage="sft", do_train=True, finetuning_type="lora" if job.lora else "full", dataset="records",
        dataset_dir=str(job.data), media_dir=str(job.data), template="qwen2_vl" if job.qwen else "smolvlm", cutoff_len=LONGEST,
        overwrite_cache=True, preprocessing_num_workers=1, overwrite_output_dir=True, num_train_epochs=1, fp16=False, bf16=False,
        use_cpu=True, disable_gradient_checkpointing=not job.checkpointing, freeze_vision_tower=job.frozen or job.lora,
        freeze_multi_modal_projector=job.lora, disable_shuffling=job.style == "order", save_strategy="no",
    )  # fmt: skip
    if job.style == "grouped":
        config["train_sampling_strategy"] = "group_by_length"
    if job.lora:
        config |= dict(lora_rank=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, lora_target="all")
    config |= job.extra
    # Written as JSON, which is YAML as well; given a name in .json, LLaMA-Factory 0.9.5 fails.
    return [str(python_of("llamafactory").parent / "llamafactory-cli"), "train", str(_write(job.out / "job.yaml", config))]


def swift(job: Job) -> list[str]:
    """`swift sft`; its packing asks for a flash-attention kernel, which no CPU has."""
    kind = "qwen2_5_vl" if job.qwen else "smolvlm"
    options = _trainer(job) | {
        "model": job.model, "model_type": kind, "template": kind, "dataset": job.data / "records.jsonl", "add_version": "false",
        "tuner_type": "lora" if job.lora else "full", "max_length": LONGEST, "torch_dtype": "float32", "attn_impl": "sdpa",
        "gradient_checkpointing": _yes(job.checkpointing), "dataset_num_proc": 1, "adam_beta2": 0.999,
        "split_dataset_ratio": 0, "warmup_ratio": 0,
        "use_hf": "true", "freeze_vit": _yes(job.frozen or job.lora), "freeze_aligner": _yes(job.lora), "num_train_epochs": 1,
        "dataset_shuffle": "false", "train_dataloader_shuffle": _yes(job.style == "grouped"), "lazy_tokenize": _yes(job.style == "order"),
    }  # fmt: skip
    if job.style == "grouped":
        options["group_by_length"] = "true"
    if job.style == "packed":
        options["packing"] = "true"
    if job.lora:
        options |= {"lora_rank": RANK, "lora_alpha": 2 * RANK, "lora_dropout": 0, "target_modules": "all-linear"}
    return [str(python_of("swift").parent / "swift"), "sft", *_flags(options | job.extra)]


def automodel(job: Job) -> list[str]:
    """`automodel CONFIG`, its recipe for vision-language models."""
    collate = "qwen2_5_collate_fn" if job.qwen else "default_collate_fn"
    vlm = "nemo_automodel.components.datasets.vlm"
    config: dict[str, Any] = {
        "recipe": "FinetuneRecipeForVLM",
        "seed": 42,
        "step_scheduler": {
            "global_batch_size": job.size, "local_batch_size": job.size, "num_epochs": 1, "ckpt_every_steps": 10**6,
            "val_every_steps": 10**6,
        },
        "dist_env": {"backend": "gloo", "timeout_minutes": 5},
        "model": {
            "_target_": "nemo_automodel.NeMoAutoModelForImageTextToText.from_pretrained", "attn_implementation": "sdpa",
            "pretrained_model_name_or_path": str(job.model), "torch_dtype": "float32",
        },
        "processor": {"_target_": "transformers.AutoProcessor.from_pretrained", "pretrained_model_name_or_path": str(job.model)},
        "checkpoint": {"enabled": False, "checkpoint_dir": str(job.out / "run")},
        "distributed": {"strategy": "ddp"},
        "loss_fn": {"_target_": "nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy"},
        "dataset": {
            "_target_": f"{vlm}.datasets.make_meta_dataset", "path_or_dataset": str(job.data / "dataset_info.json"),
            "dataset_names": ["records"],
        },
        "dataloader": {
            "_target_": "torchdata.stateful_dataloader.StatefulDataLoader", "num_workers": 0, "shuffle": False,
            "collate_fn": {"_target_": f"{vlm}.collate_fns.{collate}"},
        },
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": RATE, "weight_decay": 0.0, "betas": [0.9, 0.999], "fused": True},
        "clip_grad_norm": {"max_norm": 1.0},
    }  # fmt: skip
    if job.style == "packed":
        config["packed_sequence"] = {"pretokenize": True, "max_length": LONGEST, "pack_size": 2 * LONGEST}
        config["dataloader"]["collate_fn"] = None
        config["step_scheduler"] |= {"global_batch_size": 1, "local_batch_size": 1}
    if job.lora:
        config["peft"] = {
            "_target_": "nemo_automodel.components._peft.lora.PeftConfig", "target_modules": ["*language_model*_proj"], "dim": RANK,
            "alpha": 2 * RANK, "use_triton": False,
        }  # fmt: skip
    return [str(python_of("automodel")), str(HERE / "automodel_here.py"), str(_write(job.out / "job.yaml", config | job.extra))]


def plain(job: Job) -> list[str]:
    """plain.py beside this."""
    path = _write(
        job.out / "job.json",
        {
            "model": str(job.model), "data": str(job.data / "records.jsonl"), "size": job.size, "lr": RATE, "lora": RANK if job.lora else 0,
            "checkpointing": job.checkpointing, "frozen": job.frozen, "grouped": job.style == "grouped",
        },
    )  # fmt: skip
    return [sys.executable, str(HERE / "plain.py"), str(path)]


COMMANDS: dict[str, Callable[[Job], list[str]]] = {
    "foveate": foveate,
    "trl": trl,
    "llamafactory": llamafactory,
    "swift": swift,
    "automodel": automodel,
    "plain": plain,
}


def _trainer(job: Job) -> dict[str, Any]:
    """Options of transformers' Trainer, which TRL, LLaMA-Factory and ms-swift pass on."""
    return {
        "output_dir": str(job.out / "run"), "per_device_train_batch_size": job.size, "gradient_accumulation_steps": 1,
        "learning_rate": RATE, "lr_scheduler_type": "constant", "logging_steps": 1, "bf16": "false", "use_cpu": "true",
        "report_to": "none", "dataloader_num_workers": 0, "seed": 42, "save_strategy": "no", "max_grad_norm": 1.0, "weight_decay": 0.0,
    }  # fmt: skip


def _targets(job: Job) -> str:
    return "all-linear" if not job.qwen else r".*language_model.*_proj"


def _flags(options: dict[str, Any]) -> list[str]:
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def _yes(value: bool) -> str:
    return "true" if value else "false"


def _write(path: Path, config: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return path
