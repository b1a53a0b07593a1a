"""Saving and resuming in one process."""

from __future__ import annotations

import copy
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from foveate.config.recipe import Recipe
from foveate.dist.mesh import Ranks
from foveate.errors import CheckpointError
from foveate.train import manifest
from foveate.train.checkpoint import Best, RunState, differences, flatten, load_checkpoint, names_any, read_state, save_checkpoint
from tests.dist.processes import clean_server

RANKS = Ranks()


def build(width: int = 8, *, frozen_bias: bool = True) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small network with a frozen tensor, a tensor that never has a gradient, and a persistent buffer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
    model[0].bias.requires_grad_(not frozen_bias)
    model.unused = nn.Parameter(torch.ones(3))
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        torch.manual_seed(step)
        loss = model(torch.randn(5, 4)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def save(root: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, **more) -> Path:
    state = RunState(step=step, recipe={"optim": {"lr": 0.01}}, **more)
    return save_checkpoint(root, state, model=model, optimizer=optimizer, ranks=RANKS, keep=2)


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, **more):
    return load_checkpoint(path, RunState(step=0, recipe={"optim": {"lr": 0.01}}, **more), model=model, optimizer=optimizer, ranks=RANKS)


def test_resume_is_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = build()
    train(model, optimizer, range(3))
    best = Best(metric="exact_match", value=0.5, step=2)
    path = save(tmp_path, model, optimizer, 3, best=best, ledger={"image_missing": 2}, fingerprints={"data": "ab"}, versions={"torch": "x"})
    wanted = train(model, optimizer, range(3, 8))
    fresh, other = build()
    train(fresh, other, range(20, 24))
    loaded = load(tmp_path, fresh, other, fingerprints={"data": "ab"})
    assert (loaded.path, loaded.notes) == (path, ())
    assert (loaded.state.step, loaded.state.best, loaded.state.ledger) == (3, best, {"image_missing": 2})
    assert train(fresh, other, range(3, 8)) == wanted
    for (name, before), after in zip(model.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(before, after), name
    assert fresh.unused not in other.state


def test_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    model, optimizer = build()
    train(model, optimizer, range(1))
    for step in range(1, 6):
        state = RunState(step=step)
        save_checkpoint(tmp_path, state, model=model, optimizer=optimizer, ranks=RANKS, keep=2, protect=[2])
    assert sorted(os.listdir(tmp_path)) == ["LATEST", "step-000002", "step-000004", "step-000005"]


def test_another_run_is_refused_and_every_difference_named(tmp_path: Path) -> None:
    model, optimizer = build()
    train(model, optimizer, range(1))
    save(tmp_path, model, optimizer, 1, fingerprints={"training data": "a" * 64, "encoder": "same"})
    before = model[0].weight.clone()
    now = RunState(step=0, recipe={"optim": {"lr": 0.5, "eps": 1e-8}}, fingerprints={"training data": "b" * 64, "encoder": "same"})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path, now, model=model, optimizer=optimizer, ranks=RANKS)
    text = str(caught.value)
    assert "optim.lr: 0.01 in the checkpoint, 0.5 now" in text
    assert "optim.eps: unset in the checkpoint, 1e-08 now" in text
    assert "the training data changed: fingerprint aaaaaaaaaaaa in the checkpoint, bbbbbbbbbbbb now" in text
    assert "encoder" not in text
    assert torch.equal(model[0].weight, before)


def test_a_key_that_came_into_being_since_then_had_its_default() -> None:
    now = Recipe.model_validate({"model": {"id": "m"}, "data": {"train": [{"path": "a.jsonl"}]}}).model_dump(mode="json")
    before = copy.deepcopy(now)
    del before["model"]["head"], before["media"]
    assert differences(RunState(step=1, recipe=before), RunState(step=1, recipe=now)) == []
    now["model"]["head"] = "liger"
    (line,) = differences(RunState(step=1, recipe=before), RunState(step=1, recipe=now))
    assert line == 'model.head: "auto" in the checkpoint, "liger" now'


def test_keys_that_change_nothing_may_differ() -> None:
    one = {"train": {"output": "a", "keep": 1, "seed": 1}, "log": [], "parallel": {"strategy": "ddp"}, "data": {"workers": 1}}
    two = {"train": {"output": "b", "keep": 3, "seed": 1}, "log": ["wandb"], "parallel": {"strategy": "fsdp2"}, "data": {"workers": "auto"}}
    assert differences(RunState(step=1, recipe=one), RunState(step=1, recipe=two)) == []
    changed = {**two, "train": {**two["train"], "seed": 2}}
    assert differences(RunState(step=1, recipe=one), RunState(step=1, recipe=changed)) == ["train.seed: 1 in the checkpoint, 2 now"]


def test_a_name_stands_for_what_lies_below_it_and_not_for_what_begins_alike() -> None:
    names = ("data.train", "media")
    assert all(names_any(key, names) for key in ("data.train", "data.train[0].path", "media.fetch"))
    assert not any(names_any(key, names) for key in ("data.training", "mediation", "data"))


def test_flatten_names_list_items_and_keeps_empty_containers() -> None:
    assert flatten({"a": [{"b": None}, 2], "c": {}, "d": []}) == {"a[0].b": "null", "a[1]": "2", "c": "{}", "d": "[]"}


def test_a_model_that_trains_other_tensors_is_refused(tmp_path: Path) -> None:
    model, optimizer = build()
    train(model, optimizer, range(1))
    save(tmp_path, model, optimizer, 1)
    with pytest.raises(CheckpointError, match="it lacks model/0.bias"):
        load(tmp_path, *build(frozen_bias=False))
    with pytest.raises(CheckpointError, match=r"model/0.weight is \[8, 4\] in it, \[6, 4\] in this run"):
        load(tmp_path, *build(width=6))
    smaller, _ = build()
    smaller[2].bias.requires_grad_(False)
    with pytest.raises(CheckpointError, match="this run does not train what it holds: model/2.bias"):
        load(tmp_path, smaller, torch.optim.AdamW([p for p in smaller.parameters() if p.requires_grad]))


def test_a_checkpoint_without_optimizer_state_is_refused(tmp_path: Path) -> None:
    model, optimizer = build()
    save(tmp_path, model, optimizer, 1)
    with pytest.raises(CheckpointError, match="it has no optimizer state"):
        load(tmp_path, model, optimizer)


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"format": 1, "step": 3}')
    with pytest.raises(CheckpointError, match="another version of Foveate"):
        read_state(tmp_path)


def test_a_root_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model, optimizer = build()
    with pytest.raises(CheckpointError, match="can't be written") as caught:
        save(tmp_path / "file" / "checkpoints", model, optimizer, 1)
    assert caught.value.where.endswith("checkpoints")


def save_with_little_room(root: Path, sender) -> None:
    """A checkpoint fits, then files may not grow over 2 kB, as under a quota."""
    model, optimizer = build(width=200)
    train(model, optimizer, range(1))
    save(root, model, optimizer, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    try:
        save(root, model, optimizer, 2)
        sender.send("saved")
    except CheckpointError as error:
        sender.send(str(error))


def test_a_full_disk_keeps_the_last_good_one(tmp_path: Path) -> None:
    context = clean_server()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=save_with_little_room, args=(tmp_path, sender))
    process.start()
    assert receiver.poll(60)
    message = receiver.recv()
    process.join()
    assert "no space left for a checkpoint of" in message and "bytes free" in message and str(tmp_path) in message
    assert sorted(os.listdir(tmp_path)) == ["LATEST", "step-000001"]
    assert manifest.find_checkpoint(tmp_path).notes == ()


def save_for_ever(root: Path) -> None:
    """Every tensor of step k holds k, so that a mix of two saves would show."""
    model, optimizer = build(width=64)
    train(model, optimizer, range(1))
    step = max((manifest.step_of(path) or 0 for path in manifest.list_checkpoints(root)), default=0)
    while True:
        step += 1
        with torch.no_grad():
            for tensor in [*model.parameters(), *(value for state in optimizer.state.values() for value in state.values())]:
                tensor.fill_(step)
        save(root, model, optimizer, step)


def test_killed_at_any_moment_the_newest_checkpoint_is_whole(tmp_path: Path) -> None:
    context, luck, seen, torn = clean_server(), random.Random(0), 0, 0
    for _ in range(20):
        process = context.Process(target=save_for_ever, args=(tmp_path,))
        process.start()
        while len(manifest.list_checkpoints(tmp_path)) == 0 or seen == max(map(manifest.step_of, manifest.list_checkpoints(tmp_path))):
            time.sleep(0.001)
        time.sleep(luck.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        torn += any(tmp_path.glob(".stage-*"))
        found = manifest.find_checkpoint(tmp_path)
        assert not any("rejected" in note for note in found.notes), found.notes
        model, optimizer = build(width=64)
        step = load(found.path, model, optimizer).state.step
        assert manifest.step_of(found.path) == step > seen
        assert all((parameter == step).all() for parameter in model.parameters() if parameter.requires_grad)
        assert all((value == step).all() for state in optimizer.state.values() for value in state.values())
        seen = step
    assert torn, "no kill came in the middle of a save"
