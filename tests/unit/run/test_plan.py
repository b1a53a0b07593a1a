"""`foveate plan`: machines by name, samples of records, and predictions that follow from both."""

from __future__ import annotations

import pytest

from foveate.config.batch import BatchSection
from foveate.errors import DataError, FoveateError
from foveate.gpus import GPUS, known_gpu
from foveate.model.flops import matmul_rate
from foveate.run.formula import training_formula
from foveate.run.plan import RunPlan, parse_machine, plan
from foveate.run.prepare import Prepared, prepare
from foveate.run.sampled import take_sample
from tests import families
from tests.e2e.conftest import write_recipe, write_set


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    from foveate.config.load import load_recipe

    folder = tmp_path_factory.mktemp("plan")
    model = families.save("smolvlm", folder / "smolvlm")
    write_set(folder, 30)
    sections = {"data": {"train": [{"path": str(folder / "train.jsonl")}], "workers": 0}, "batch": {"size": 8, "max_tokens": 128}}
    return load_recipe(write_recipe(folder, model, **sections, train={"steps": None, "epochs": 2}), ())


@pytest.fixture(scope="module")
def prepared(recipe) -> Prepared:
    return prepare(recipe, allow_code=False)


@pytest.fixture(scope="module")
def planned(recipe) -> RunPlan:
    return plan(recipe, ("h200:8", "l4"), prices={"l4": 2.0})


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("AMD Instinct MI300X", "mi300x"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", None),
        ("NVIDIA H2000", None),
    ],
)
def test_cards_are_known_by_what_their_driver_calls_them(driver, name):
    assert known_gpu(driver) == (GPUS[name] if name else None)


def test_machines():
    eight = parse_machine("H200:8", {"h200": 1.5})
    assert (eight.count, eight.memory_bytes, eight.usd_per_hour) == (8, GPUS["h200"].memory_bytes, 1.5)
    with pytest.raises(FoveateError, match=r"no card 'h2000' is known; did you mean h200\?"):
        parse_machine("h2000:4", {})
    with pytest.raises(FoveateError, match="'0' is no number of cards"):
        parse_machine("h200:0", {})
    with pytest.raises(FoveateError, match="'many' is no number of cards"):
        parse_machine("h200:many", {})
    with pytest.raises(FoveateError, match="'' is no number of cards"):
        parse_machine("h200:", {})
    with pytest.raises(FoveateError, match="one cpu to plan for"):
        parse_machine("cpu:4", {})
    cpu = parse_machine("cpu", {})
    assert cpu.flops_per_s > 1e8 and cpu.memory_bytes > 2**28 and cpu.usd_per_hour == 0


def test_the_sample_says_what_a_conversation_costs(prepared):
    sample = take_sample(prepared)
    lengths = [prepared.encoder.length(prepared.train.conversation(slot)).tokens for slot in range(30)]
    assert (sample.records, sample.read, sample.usable, sample.steps) == (30, 30, 30, 8)
    assert sample.mean_tokens == pytest.approx(sum(lengths) / 30) and sample.longest == max(lengths)
    assert sample.extent["tokens"] == pytest.approx(sample.mean_tokens)
    row = sample.row(120, prepared.family, prepared.encoder, packs=True)
    assert 120 - max(lengths) < row.labels.numel() <= 120 and sum(row.segments) == row.labels.numel()


def test_records_that_can_t_be_used_are_left_out(recipe):
    short = recipe.model_copy(update={"batch": recipe.batch.model_copy(update={"max_tokens": 16})})
    with pytest.raises(DataError, match="none of 30 records can be used"):
        take_sample(prepare(short, allow_code=False))


def test_a_plan_says_what_fits_what_it_costs_and_what_to_change(planned, prepared):
    assert (planned.records, planned.steps, planned.conversations) == (30, 8, 8.0)
    formula = training_formula(prepared)
    sample = take_sample(prepared)
    assert planned.step_flops == pytest.approx(8 * formula.model_flops(sample.extent)) and sum(planned.parts.values()) == pytest.approx(1)
    eight, one = planned.machines
    assert {setting.strategy for setting in eight.settings} == {"ddp", "fsdp2"} and {s.strategy for s in one.settings} == {"single"}
    assert {setting.gradient_checkpointing for setting in one.settings} == {"none", "selective", "full"}
    assert all(setting.fits for setting in one.settings) and one.best in one.settings and one.best.gradient_checkpointing == "none"
    assert one.best.usd == pytest.approx(one.best.run_s / 3600 * 2.0) and one.best.run_s == pytest.approx(8 * one.best.step_s)
    assert "train.gradient_checkpointing=none" in one.best.overrides
    by_mode = {setting.gradient_checkpointing: setting.memory.activations for setting in one.settings if setting.max_tokens == 128}
    # Of two blocks the last holds little: recomputing all of them saves no more than recomputing what is cheap.
    assert by_mode["none"] > by_mode["selective"] >= by_mode["full"]
    sharded = next(setting for setting in eight.settings if setting.strategy == "fsdp2")
    whole = next(setting for setting in eight.settings if setting.strategy == "ddp")
    assert sharded.memory.optimizer * 8 == pytest.approx(whole.memory.optimizer, abs=8)


def test_where_nothing_fits_there_is_no_suggestion(recipe, monkeypatch):
    from foveate import gpus
    from foveate.gpus import Gpu

    small = Gpu(name="small", memory_gib=1.0, tflops=10.0, gbps=100.0, usd_per_hour=1.0)
    monkeypatch.setitem(gpus.GPUS, "small", small)  # a card with no more than what a process takes by itself
    (found,) = plan(recipe, ("small:2",), prices={}, mfu=0.2).machines
    assert found.best is None and found.mfu == 0.2 and not any(setting.fits for setting in found.settings)


def changed(recipe, **sections):
    """The recipe with other values in some of its sections."""
    return recipe.model_copy(update={name: vars(recipe)[name].model_copy(update=values) for name, values in sections.items()})


def test_only_what_the_rules_of_recipes_take_is_planned(recipe):
    (found,) = plan(changed(recipe, optim={"name": "adafactor"}), ("h200:2",), prices={}).machines
    assert {setting.strategy for setting in found.settings} == {"ddp"}  # its states can't be sharded
    compiled = changed(recipe, train={"compile": True, "checkpoint_parts": ["language"]})
    (found,) = plan(compiled, ("h200",), prices={}).machines
    assert {setting.gradient_checkpointing for setting in found.settings} == {"none", "full"}
    assert found.best.overrides == ("train.gradient_checkpointing=none", "train.checkpoint_parts=[language,vision]")


def test_rows_keep_their_length(recipe):
    by_rows = recipe.model_copy(update={"batch": BatchSection(rows=60, max_tokens=512)})
    (found,) = plan(by_rows, ("h200",), prices={}).machines
    assert {setting.max_tokens for setting in found.settings} == {512}  # another one would make other steps


def test_a_cpu_is_measured(recipe):
    (found,) = plan(recipe, ("cpu",), prices={}).machines
    assert found.best is not None and found.best.usd == 0 and found.best.step_s > 0


def test_matrix_products_can_be_measured_quickly():
    import torch

    assert matmul_rate(torch.device("cpu"), torch.float32, 64, seconds=0.01) > 1e8
