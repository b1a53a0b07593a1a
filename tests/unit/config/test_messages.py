"""Each mistake's own line: what is wrong and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.recipes import DATA, problems


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("batch: {sise: 4}", "batch.sise: unknown key; did you mean size?"),
        ("lr: 1", "lr: unknown key; did you mean optim.lr, optim.per_part.0.lr?"),
        ("modle: {}", "modle: unknown key; did you mean model?"),
        ("qqq: 1", "qqq: unknown key; known keys here: model, tuning, data, media, batch, optim, train, evaluate, parallel, log"),
        ("tuning: {type: lore}", "tuning.type: is 'lore', but should be one of full, lora; did you mean lora?"),
        ("batch: {size: 4.0}", "batch.size: is 4.0, but should be a whole number; write 4"),
        ("batch: {size: 4.5}", "batch.size: is 4.5, but should be a whole number"),
        ("batch: {size: '4'}", "batch.size: is '4', but should be a whole number; remove the quotes"),
        ("batch: {size: true}", "batch.size: is true, but should be a whole number"),
        ("batch: {size: 0}", "batch.size: is 0, but must be greater than 0"),
        ("batch: {pack: no}", "batch.pack: is 'no', but should be true or false; write false"),
        ("batch:", "batch: is empty, but should be a mapping of keys to values; give it a value, or remove the line for the default"),
        ("batch: {size: }", "batch.size: is empty, but should be a whole number; give it a value, or remove the line for the default (16)"),
        ("batch: 16", "batch: is 16, but should be a mapping of keys to values"),
        ("model: {revision: 123}", "model.revision: is 123, but should be text or null; put it in quotes if it is meant as text"),
        ("log: wandb", "log: is 'wandb', but should be a list of tensorboard, wandb, mlflow; write [wandb]"),
        ("log: [wandbb]", "log.0: is 'wandbb', but should be one of tensorboard, wandb, mlflow; did you mean wandb?"),
        ("optim: {betas: [0.9]}", "optim.betas: is a list of 1, but should be a list of 2 numbers"),
        ("optim: {betas: [0.9, x]}", "optim.betas.1: is 'x', but should be a number"),
        ("optim: {per_part: {projektor: {lr: 1}}}", "optim.per_part.projektor: unknown key; did you mean projector?"),
        ("optim: {per_part: {language: {lrr: 1}}}", "optim.per_part.language.lrr: unknown key; did you mean lr?"),
        ("optim: {min_lr: 2}", "optim.min_lr: is 2, but must be at most 1"),
        ("train: {best: 3}", "train.best: is 3, but should be one of loss, exact_match, vqa_accuracy, wer or null"),
    ],
)
def test_one_mistake_one_line(tmp_path: Path, line: str, expected: str):
    assert problems(tmp_path, DATA + line + "\n") == [f"recipe.yaml:2: {expected}"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("model: {}", "recipe.yaml:1: data: is missing; add `data: {train: [{path: my_data.jsonl}]}`"),
        ("data: {eval: []}", "recipe.yaml:1: data.train: is missing; add `data: {train: [{path: my_data.jsonl}]}`"),
        ("data: {train: []}", "recipe.yaml:1: data.train: has 0 items, but needs at least 1; add one"),
        (
            "data:\n  train:\n    use: medpix",
            "recipe.yaml:2: data.train: is a mapping, but should be a list of mappings; begin each item with `- `",
        ),
        ("data:\n  train:\n    - paht: x", "recipe.yaml:3: data.train.0.paht: unknown key; did you mean path?"),
        (
            "data: {train: [{use: medpix}], workers: many}",
            "recipe.yaml:1: data.workers: is 'many', but should be a whole number or auto",
        ),
        (
            "data: {train: [{use: medpix}], max_bad: [1]}",
            "recipe.yaml:1: data.max_bad: is a list of 1, but should be a whole number or text; write 1 without the brackets",
        ),
    ],
)
def test_data(tmp_path: Path, data: str, expected: str):
    assert problems(tmp_path, data + "\n") == [expected]


def test_all_problems_come_at_once_in_the_order_of_lines(tmp_path: Path):
    text = """
model: {dtype: bf16}
tuning: {type: full, parts: [language], freeze: [language], typo: 1}
data:
  train: [{use: medpix}, {path: a.jsonl, hub: b/c}]
  max_bad: 1
  max_bad: 2
optim: {lr: "1e-4", per_part: {vision: {lr: 1.0}}}
batch: {size: 4, micro_size: 8}
train: {output: "${UNSET}/x", best: wer}
"""
    found = problems(tmp_path, text, "batch.max_tokens=-1")
    paths = [line.split(": ")[1] for line in found]
    assert paths == [
        "model.dtype",
        "tuning.typo",
        "tuning.freeze",
        "data.train.1",
        "data.max_bad",
        "optim.lr",
        "optim.per_part.vision",
        "batch.micro_size",
        "train.output",
        "train.best",
        "train.best",
        "batch.max_tokens",
    ]
    assert found[-1] == "override 'batch.max_tokens=-1': batch.max_tokens: is -1, but must be greater than 0"
