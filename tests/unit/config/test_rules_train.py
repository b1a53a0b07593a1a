"""Rules of the optimizer, of recomputation and of compiling."""

import pytest

from tests.unit.config.recipes import DATA, load, problems


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("optim: {name: sgd, betas: [0.8, 0.9]}", "optim.betas: has no effect with sgd; remove it"),
        ("optim: {name: adafactor, eps: 1e-6}", "optim.eps: has no effect with adafactor; remove it"),
        ("optim: {momentum: 0.5}", "optim.momentum: has no effect with adamw; remove it"),
        ("optim: {name: adamw_8bit, states: bfloat16}", "optim.states: has no effect with adamw_8bit; remove it"),
        (
            "{optim: {name: paged_adamw_8bit}, parallel: {strategy: fsdp2}}",
            "optim.name: is paged_adamw_8bit, whose states can't be sharded; "
            "use adamw with optim.states: bfloat16, or parallel.strategy: ddp",
        ),
        (
            "train: {checkpoint_parts: []}",
            "train.checkpoint_parts: is empty, so nothing would be recomputed; "
            "name language or vision, or set gradient_checkpointing: none",
        ),
        ("train: {checkpoint_parts: [vision, vision]}", "train.checkpoint_parts: names vision twice; name it once"),
        (
            "train: {gradient_checkpointing: false, checkpoint_parts: [vision]}",
            "train.checkpoint_parts: has no effect: gradient_checkpointing is none; remove it",
        ),
        (
            "train: {compile: true, gradient_checkpointing: selective}",
            "train.gradient_checkpointing: can't be selective in compiled blocks, where the compiler chooses what is recomputed; "
            "use none, full or auto",
        ),
    ],
)
def test_broken_rules(tmp_path, line, expected):
    text = line[1:-1].replace("}, ", "}\n") if line.startswith("{") else line
    assert any(problem.endswith(expected) for problem in problems(tmp_path, DATA + text + "\n"))


@pytest.mark.parametrize(
    "line",
    [
        "optim: {name: adamw_8bit, betas: [0.9, 0.95], eps: 1e-6}",
        "optim: {name: sgd, momentum: 0.0}",
        "optim: {states: bfloat16}\nparallel: {strategy: fsdp2}",
        "optim: {name: sgd}\nparallel: {strategy: fsdp2}",
        "train: {compile: true, gradient_checkpointing: full, checkpoint_parts: [language]}",
    ],
)
def test_what_goes_together(tmp_path, line):
    load(tmp_path, DATA + line + "\n")
