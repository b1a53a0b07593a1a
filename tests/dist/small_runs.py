"""A small training run on a tiny model, the same for any strategy and number of processes; run from many processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from foveate.config.train import ParallelSection
from foveate.dist.mesh import Ranks, all_reduce_sum
from foveate.dist.strategy import Strategy, choose_strategy, unwrap
from foveate.train.checkpoint import RunState, load_checkpoint, save_checkpoint
from foveate.train.export import export_model
from foveate.train.tensors import whole_state
from tests import families

Inputs = dict[str, Tensor]
MicroBatches = list[Inputs]


def sample(processor: Any, index: int, *, image: bool = True, trained: bool = True) -> Inputs:
    """One encoded conversation, [1, T] inputs and labels: its last 4 tokens are trained, or none."""
    pixels = np.random.default_rng(index).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    parts = [{"type": "image", "image": Image.fromarray(pixels)}] if image else []
    user = {"role": "user", "content": [*parts, {"type": "text", "text": f"how many objects {index}" + " there" * (index % 3)}]}
    chat = [user, {"role": "assistant", "content": [{"type": "text", "text": "one two three"}]}]
    inputs = dict(processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt"))
    labels = torch.full_like(inputs["input_ids"], -100)
    if trained:
        labels[:, -4:] = inputs["input_ids"][:, -4:]
    return {**inputs, "labels": labels}


def joined(part: list[Inputs]) -> Inputs:
    """Pads samples to one batch; media go end to end (Qwen), or samples without any get blank ones (SmolVLM's [samples, images, ...])."""
    longest = max(item["input_ids"].shape[1] for item in part)
    out: Inputs = {}
    for name in ("input_ids", "attention_mask", "labels", "mm_token_type_ids"):
        if name in part[0]:
            fill = -100 if name == "labels" else 0
            out[name] = torch.cat([nn.functional.pad(item[name], (0, longest - item[name].shape[1]), value=fill) for item in part])
    for name in sorted({key for item in part for key in item} - out.keys()):
        held = [item[name] for item in part if name in item]
        if name in ("pixel_values", "pixel_attention_mask") and held[0].ndim >= 4 and "image_sizes" not in part[0]:
            held = [item.get(name, torch.zeros_like(held[0])) for item in part]
        out[name] = torch.cat(held)
    return out


def micro_batches(processor: Any, step: int, ranks: Ranks) -> MicroBatches:
    """This process's two micro-batches of a step. The 4 samples of a step are the same for every number of processes, and only the
    first has an image; where there is none, an untrained one keeps the whole model in use."""
    samples = [sample(processor, 4 * step + i, image=i == 0) for i in range(4)]
    mine = samples[ranks.rank :: ranks.world]
    parts = [mine[: len(mine) // 2], mine[len(mine) // 2 :]]
    dummy = sample(processor, 99, trained=False)
    return [joined(part if any("pixel_values" in item for item in part) else [*part, dummy]) for part in parts]


def build(family: str, tuning: str) -> tuple[nn.Module, Any]:
    """Model and processor; `tuning` is full, or lora (adapters on the language part and the projector in full beside them)."""
    model, processor = families.build(family)
    torch.manual_seed(1)
    if tuning == "lora":
        from peft import LoraConfig, get_peft_model

        whole = {"smolvlm": ["connector"], "qwen2_5_vl": ["merger"]}[family]
        targets = ".*(text_model|language_model).*(q_proj|v_proj)"
        model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, modules_to_save=whole))
        nn.init.normal_(next(p for name, p in model.named_parameters() if "lora_B" in name), std=0.02)
    return model, processor


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW as the recipe's: fused, over what is trained."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.1, fused=True)


def start(family: str, tuning: str, strategy: str, ranks: Ranks) -> tuple[nn.Module, torch.optim.Optimizer, Strategy, Any]:
    """A prepared run: (model, optimizer, strategy, processor)."""
    model, processor = build(family, tuning)
    chosen = choose_strategy(ParallelSection(strategy=strategy), ranks)
    return *chosen.prepare(model, optimizer_of), chosen, processor


def accumulate(model: nn.Module, strategy: Strategy, batches: MicroBatches) -> float:
    """Forward and backward of a step, as the training loop does them -> the mean loss over all processes."""
    targets = int(all_reduce_sum([sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)])[0])
    total = 0.0
    for index, batch in enumerate(batches):
        labels = batch["labels"][:, 1:]
        with strategy.microbatch(last=index == len(batches) - 1):
            logits = model(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False).logits
            loss = nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
            strategy.backward(loss, targets)
            total += float(loss.detach())
    return all_reduce_sum([total])[0] / targets


def train_step(model: nn.Module, strategy: Strategy, optimizer: torch.optim.Optimizer, batches: MicroBatches) -> tuple[float, float]:
    """One whole step -> (loss, gradient norm)."""
    loss = accumulate(model, strategy, batches)
    norm = strategy.clip(1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss, norm


def whole_gradients(model: nn.Module) -> dict[str, np.ndarray]:
    """Gradients by parameter name, gathered; parameters without one are left out."""
    found = {name: parameter.grad for name, parameter in unwrap(model).named_parameters() if parameter.grad is not None}
    return {name: (grad.full_tensor() if isinstance(grad, DTensor) else grad).clone().numpy() for name, grad in found.items()}


def first_step_and_more(ranks: Ranks, family: str, cases: list[tuple[str, str]]) -> dict:
    """For each (tuning, strategy): the first step's loss, gradients and norm, then the losses of three steps."""
    results = {}
    for tuning, name in cases:
        model, optimizer, strategy, processor = start(family, tuning, name, ranks)
        loss = accumulate(model, strategy, micro_batches(processor, 0, ranks))
        gradients, norm = whole_gradients(model), strategy.clip(None)
        optimizer.zero_grad(set_to_none=True)
        steps = [train_step(model, strategy, optimizer, micro_batches(processor, step, ranks))[0] for step in range(3)]
        results[tuning, name] = {"loss": loss, "gradients": gradients, "norm": norm, "steps": steps}
    return results


def save_and_go_on(ranks: Ranks, family: str, cases: list[tuple[str, str]], root: Path) -> dict:
    """For each case: two steps, a checkpoint below `root`, an evaluation, two more steps -> their losses and norms, and the end state."""
    results = {}
    for tuning, name in cases:
        model, optimizer, strategy, processor = start(family, tuning, name, ranks)
        for step in range(2):
            train_step(model, strategy, optimizer, micro_batches(processor, step, ranks))
        with torch.no_grad():  # leaves FSDP2's root gathered: saving must not mind
            batch = micro_batches(processor, 9, ranks)[0]
            model(**{key: value for key, value in batch.items() if key != "labels"}, use_cache=False)
        state = RunState(step=2, world=ranks.world)
        save_checkpoint(root / f"{tuning}-{name}", state, model=model, optimizer=optimizer, ranks=ranks, keep=1)
        results[tuning, name] = _go_on(model, optimizer, strategy, processor, ranks)
    return results


def resume_and_go_on(ranks: Ranks, family: str, cases: list[tuple[str, str, str]], root: Path, stale: bool = True) -> dict:
    """For each (tuning, strategy, strategy that saved): resumes and makes the same two steps; with `stale`, over values of another step."""
    results = {}
    for tuning, name, saved_by in cases:
        model, optimizer, strategy, processor = start(family, tuning, name, ranks)
        if stale:
            train_step(model, strategy, optimizer, micro_batches(processor, 7, ranks))
        loaded = load_checkpoint(root / f"{tuning}-{saved_by}", RunState(step=0), model=model, optimizer=optimizer, ranks=ranks)
        assert loaded.state.step == 2
        results[tuning, name, saved_by] = _go_on(model, optimizer, strategy, processor, ranks)
    return results


def _go_on(model: nn.Module, optimizer: torch.optim.Optimizer, strategy: Strategy, processor: Any, ranks: Ranks) -> dict:
    steps = [train_step(model, strategy, optimizer, micro_batches(processor, step, ranks)) for step in (2, 3)]
    return {"steps": steps, "end": {name: tensor.numpy() for name, tensor in whole_state(model, without_frozen=True).items()}}


def train_and_export(ranks: Ranks, family: str, tuning: str, strategy: str, out: Path, base: str) -> np.ndarray:
    """One step, then an export -> the trained model's logits on a sample with an image."""
    model, optimizer, chosen, processor = start(family, tuning, strategy, ranks)
    train_step(model, chosen, optimizer, micro_batches(processor, 0, ranks))
    export_model(model, processor, out, base_id=base, ranks=ranks)
    model.eval()
    return logits_of(model, processor)


def logits_of(model: nn.Module, processor: Any) -> np.ndarray:
    """[1, T, vocabulary] logits of a sample that no run trains on."""
    inputs = sample(processor, 1000)
    with torch.no_grad():
        return model(**{name: value for name, value in inputs.items() if name != "labels"}, use_cache=False).logits.numpy()
