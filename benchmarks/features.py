"""Features of a frozen tower from the cache, against computing them: the same samples, the same steps, a tower much larger than the rest.

    python benchmarks/features.py [--repeats 5]

Prints CPU time of an epoch without a cache, of a first epoch that fills it and of a second one that reads it, as ratios: medians of
alternating epochs in one process with their spread, data included. Beside them the losses' distance, the share found and the bytes kept.
Data: real JPEG files and a JSONL file, read through the whole way of the data.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from foveate.model.load import prepare_transformers

prepare_transformers()

from foveate.batching.loader import Share, StepSource  # noqa: E402
from foveate.batching.plan import Plan  # noqa: E402
from foveate.config.load import load_recipe  # noqa: E402
from foveate.dist.mesh import Ranks  # noqa: E402
from foveate.dist.strategy import choose_strategy  # noqa: E402
from foveate.model.adapters import base_model  # noqa: E402
from foveate.model.families import keeps_logits  # noqa: E402
from foveate.model.tail import skip_unscored  # noqa: E402
from foveate.model.tiny import BUILDS  # noqa: E402
from foveate.model.tuning import apply_tuning, freeze_towers, training_mode  # noqa: E402
from foveate.run.build import load_attending  # noqa: E402
from foveate.run.features import Features, keeping_features  # noqa: E402
from foveate.run.prepare import Prepared, prepare  # noqa: E402
from foveate.train.optim import make_optimizer  # noqa: E402
from foveate.train.step import Stepper  # noqa: E402

RECORDS, STEP, PIXELS = 32, 8, (448, 448)
TOWERS = {
    "smolvlm_split": dict(hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4),
    "qwen2_5_vl": dict(depth=6, hidden_size=256, intermediate_size=1024, num_heads=4),
}


def write(folder: Path, family: str) -> Path:
    """A model with a large tower, records about one image each, and the recipe that trains the language part."""
    model_class, config, processor = BUILDS[family]()
    for name, value in TOWERS[family].items():
        setattr(config.vision_config, name, value)
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder / "base")
    processor.save_pretrained(folder / "base")
    noise, rows = np.random.default_rng(0), []
    for number in range(RECORDS):
        small = noise.integers(0, 255, (PIXELS[0] // 8, PIXELS[1] // 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize(PIXELS[::-1]).save(folder / f"{number}.jpg", quality=90)
        content = [{"type": "image", "image": f"{number}.jpg"}, {"type": "text", "text": "what color is the object on the left?"}]
        rows.append([{"role": "user", "content": content}, {"role": "assistant", "content": "red and blue"}])
    (folder / "train.jsonl").write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    recipe = {
        "model": {"id": str(folder / "base")},
        "tuning": {"type": "lora", "rank": 8, "parts": ["language"]},
        "data": {"train": [{"path": "train.jsonl"}]},
        "batch": {"size": STEP, "max_tokens": 4096},
        "media": {"cache_features": "disk", "cache_folder": "kept"},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, prepared: Prepared, features: Features | None) -> tuple[float, list[float]]:
    """(CPU seconds, losses) of one pass over the records, in the order of every other."""
    plan = Plan(records=RECORDS, size=STEP, seed=0)
    source: StepSource = prepared.source(plan, Share(), encode=None if features is None else features.encode)
    strategy = choose_strategy(prepared.recipe.parallel, Ranks())
    stepper = Stepper(
        model=model, optimizer=optimizer, strategy=strategy, ranks=Ranks(), family=prepared.family, autocast=None, max_grad_norm=1.0,
        keeps_logits=keeps_logits(base_model(model)), seed=0, features=None if features is None else features.cut,
    )  # fmt: skip
    strategy.prepare(model, lambda _: optimizer)
    began = time.process_time()
    losses = [stepper.run(source[step]).loss for step in range(len(source))]
    return time.process_time() - began, losses


def measure(family: str, repeats: int) -> dict[str, str]:
    """One model: a plain epoch, one that fills the cache and one that reads it, by turns."""
    seconds: dict[str, list[float]] = {"plain": [], "fill": [], "read": []}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(load_recipe(write(Path(folder), family)), allow_code=False)
        for turn in range(repeats + 1):  # the first is to warm up
            for name in seconds:
                # Every epoch starts from the same weights, so that the losses can be compared.
                model, _ = apply_tuning(load_attending(prepared), prepared.recipe.tuning, seed=0)
                freeze_towers(model)
                skip_unscored(model)
                training_mode(model)
                optimizer = make_optimizer(model, prepared.recipe.optim)
                if name == "fill":
                    shutil.rmtree(Path(folder) / "kept", ignore_errors=True)
                with keeping_features(prepared, model, choose_strategy(prepared.recipe.parallel, Ranks()), Ranks(), notes=[]) as features:
                    spent, losses[name] = epoch(model, optimizer, prepared, None if name == "plain" else features)
                    kept, summary = features.store.used_bytes(), features.summary()
                if turn:
                    seconds[name].append(spent)
    return {
        "epoch 2 against epoch 1": ratio(seconds["fill"], seconds["read"]),
        "against no cache": ratio(seconds["plain"], seconds["read"]),
        "filling against no cache": ratio(seconds["fill"], seconds["plain"]) + " of the time",
        "losses of fill and read": "the same bits" if losses["fill"] == losses["read"] else "DIFFERENT",
        "of cache and none": f"{max(abs(a - b) for a, b in zip(losses['plain'], losses['read'], strict=True)):.1e} apart",
        "kept": f"{kept / RECORDS / 1e3:,.0f} kB a record",
        "reading:": summary,
    }


def ratio(slow: list[float], fast: list[float]) -> str:
    """Median and spread of the ratios of neighbours."""
    found = [a / b for a, b in zip(slow, fast, strict=True)]
    return f"{statistics.median(found):.2f}x ({min(found):.2f} to {max(found):.2f})"


def main() -> None:
    """Prints a line for each family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("cached features of a frozen tower, tower-heavy; target: epoch 2 at least 1.8x as fast as epoch 1")
    for family in TOWERS:
        print(f"  {family}: " + "; ".join(f"{key} {value}".strip() for key, value in measure(family, repeats).items()))


if __name__ == "__main__":
    main()
