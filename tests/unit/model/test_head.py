"""The head only where it is scored, in whole models: every way of tuning it, what models do behind it, and where it can't be done."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn

from foveate.config.model import ModelSection, QuantizeSection
from foveate.config.tuning import TuningSection
from foveate.model import head, loss, tiny
from foveate.model.families import FAMILIES, family_of, keeps_logits
from foveate.model.load import load_model
from foveate.model.tokens import add_tokens, grow
from foveate.model.tuning import apply_tuning, checkpoint_activations
from foveate.types import Batch
from tests import families
from tests.conformance.subject import Subject, gradients, subject
from tests.policy.source import ROOT

PINNED = f"transformers=={transformers.__version__}\n" in (ROOT / "constraints.txt").read_text("utf-8")
pinned_only = pytest.mark.skipif(not PINNED, reason="older versions lack some families, or what they do to their logits")
CHANGED = sorted(name for name in tiny.BUILDS if name in FAMILIES and FAMILIES[name].after_head)


def both_ways(model: nn.Module, batches: list[Batch], monkeypatch: pytest.MonkeyPatch, family) -> tuple:
    """(loss, gradients) with the head where it is scored, and with all logits."""
    torch.manual_seed(3)
    found = gradients(model, batches, family)
    assert head.is_proven(model)
    torch.manual_seed(3)
    monkeypatch.setattr(loss, "head_loss", lambda *_: None)
    wanted = gradients(model, batches, family)
    monkeypatch.undo()
    return found, wanted


def assert_same(found: tuple, wanted: tuple, tolerance: float = 1e-6) -> None:
    """Loss and the whole gradient within `tolerance`; each tensor's own within ten times as much, if it is not rounding noise."""
    assert found[0] == pytest.approx(wanted[0], rel=tolerance)
    assert found[1].keys() == wanted[1].keys()
    flat = [torch.cat([grad.flatten() for grad in side[1].values()]) for side in (found, wanted)]
    size = float(flat[1].norm())
    assert float((flat[0] - flat[1]).norm()) <= tolerance * size
    for name, grad in wanted[1].items():
        assert float((found[1][name] - grad).norm()) <= 10 * tolerance * max(float(grad.norm()), 1e-2 * size), name


def text_batch(model: nn.Module, *, rows: int = 3, length: int = 20, weighted: bool = False) -> Batch:
    """Rows of tokens of different lengths, some of each scored."""
    torch.manual_seed(0)
    ids = torch.randint(20, 200, (rows, length))
    lengths = torch.tensor([[length - 4 * row] for row in range(rows)])
    mask = torch.arange(length)[None] < lengths
    labels = torch.where(mask & (torch.rand(ids.shape) < 0.4), ids, -100)
    return Batch(
        inputs={"input_ids": ids, "attention_mask": mask.long()},
        labels=labels,
        num_targets=int((labels[:, 1:] != -100).sum()),
        num_tokens=int(mask.sum()),
        weights=torch.rand(ids.shape) * (labels != -100) if weighted else None,
    )


@pinned_only
@pytest.mark.parametrize("name", ["smolvlm", "qwen2_audio", "qwen3_vl", "nemotron_h_omni", "llama4", "florence2", "aria", "video_llama_3"])
def test_real_batches_have_the_loss_and_gradients_of_all_logits(name, monkeypatch):
    one = subject(name)
    assert_same(*both_ways(one.fresh(), one.batches(one.mixed), monkeypatch, one.family))


@pinned_only
@pytest.mark.parametrize("name", CHANGED)
def test_what_a_family_does_to_its_logits_is_respected(name, monkeypatch):
    """With every number of the configuration set to one that changes them, the known numbers come out as the row says."""
    model_class, config, processor = tiny.BUILDS[name]()
    text = config.get_text_config(decoder=True)
    for step, field in family_of(config).after_head:
        setattr(text, field, {"cap": 0.5, "times": 0.3, "over": 0.7, "first": text.vocab_size - 20}[step])
    torch.manual_seed(0)
    model = model_class(config)
    one = Subject(name=name, model=model.train(), processor=processor)
    batches = one.batches(one.mixed[:2])
    assert_same(*both_ways(model.eval(), batches, monkeypatch, one.family), tolerance=3e-6)


def test_only_families_whose_rows_say_so_make_all_logits():
    assert {name for name, row in FAMILIES.items() if row.whole_logits} == {"chameleon"}
    one = subject("chameleon")
    gradients(one.model, one.batches(one.mixed), one.family)
    assert head.whole_logits(one.model) == FAMILIES["chameleon"].whole_logits and not head.is_proven(one.model)


def test_weights_and_nothing_scored(monkeypatch):
    model, _ = families.build("smolvlm")
    family, batch = family_of(model.config), text_batch(model, weighted=True)
    assert_same(*both_ways(model, [batch], monkeypatch, family))
    silent = replace(batch, labels=torch.full_like(batch.labels, -100), num_targets=0)
    model.zero_grad()
    total = loss.loss_sum(model, silent, keeps_logits=True)
    total.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert float(total.detach()) == 0.0 and "lm_head.weight" in reached and len(reached) > 20
    assert not any(bool(p.grad.any()) for p in model.parameters() if p.grad is not None)


TUNINGS = {
    "adapters on the head": ("smolvlm", {"parts": ["language", "head"], "rank": 2}),
    "dropout in them": ("smolvlm", {"parts": ["language"], "rank": 2, "dropout": 0.3}),
    "dora": ("smolvlm", {"parts": ["head"], "rank": 2, "dora": True}),
    "head in full": ("smolvlm", {"rank": 2, "also_full": ["head"]}),
    "tied, in full": ("gemma3", {"rank": 2, "also_full": ["head"]}),
    "tied, everything": ("gemma3", {"type": "full", "parts": ["language", "embeddings", "head"]}),
    "new rows": ("smolvlm", {"rank": 2, "add": True}),
    "new rows, tied": ("gemma3", {"rank": 2, "add": True}),
}


@pytest.mark.parametrize("way", TUNINGS)
@pytest.mark.parametrize("autocast", [False, True])
def test_every_way_of_tuning(way, autocast, monkeypatch):
    name, settings = TUNINGS[way]
    settings = {"type": "lora", **settings}
    model, processor = families.build(name)
    tokens = add_tokens(processor, ModelSection(add_tokens=["<a>", "<b>"] if settings.pop("add", False) else []))
    grow(model, tokens, seed=0)
    tuned, _ = apply_tuning(model, TuningSection(**settings), seed=0, new_tokens=tokens.ids)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    family, batch = family_of(model.config), text_batch(model)
    if name == "gemma3":
        batch.inputs["token_type_ids"] = torch.zeros_like(batch.labels)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found, wanted = both_ways(tuned.train(), [batch], monkeypatch, family)
    assert_same(found, wanted, 2e-2 if autocast else 1e-6)


@pytest.mark.parametrize("settings", [{"bits": 4}, {"bits": 8, "backend": "torchao"}])
def test_a_quantised_head(settings, tmp_path, monkeypatch):
    pytest.importorskip(settings.get("backend", "bitsandbytes"))
    quantize = QuantizeSection(parts=["head"], **settings)
    model = load_model(ModelSection(id=str(families.save("smolvlm", tmp_path)), quantize=quantize))
    tuned, _ = apply_tuning(model, TuningSection(rank=2, parts=["language", "head"]), seed=0)
    assert_same(*both_ways(tuned.train(), [text_batch(model)], monkeypatch, family_of(model.config)), tolerance=1e-5)


def test_recomputed_activations(monkeypatch):
    model, _ = families.build("smolvlm")
    assert checkpoint_activations(model)
    assert_same(*both_ways(model.train(), [text_batch(model)], monkeypatch, family_of(model.config)))


def test_an_evaluation_gives_the_same_loss_and_keeps_nothing(monkeypatch):
    model, _ = families.build("smolvlm")
    batch = text_batch(model, weighted=True)
    with torch.no_grad():
        found = loss.loss_sum(model.eval(), batch, keeps_logits=keeps_logits(model))
        monkeypatch.setattr(loss, "head_loss", lambda *_: None)
        wanted = loss.loss_sum(model, batch, keeps_logits=keeps_logits(model))
    assert float(found) == pytest.approx(float(wanted), rel=1e-6) and not found.requires_grad


def test_an_unknown_family_makes_all_logits(monkeypatch):
    model, _ = families.build("smolvlm")
    batch = text_batch(model)
    wanted = gradients(model, [batch], family_of(model.config))
    model.config.model_type = "never_heard_of"
    assert "not known" in head.whole_logits(model)
    monkeypatch.setattr(head, "HeadLoss", None)
    assert_same(gradients(model, [batch], family_of(model.config)), wanted)


class Doubled:
    """Beside a model class: does more to its logits than its family's row says."""

    def forward(self, *args, **kwargs):
        """As the model's own, twice as large."""
        output = super().forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output


class Asked(Doubled):
    """Beside a model class: asks its head twice."""

    def forward(self, *args, **kwargs):
        """As the model's own, after a question to the head."""
        self.lm_head(torch.zeros(1, 1, self.lm_head.in_features))
        return super(Doubled, self).forward(*args, **kwargs)


@pytest.mark.parametrize("odd", [Doubled, Asked])
def test_a_model_that_does_more_than_its_row_says_makes_all_logits(odd, monkeypatch):
    """Seen in the first call, which is made anew with the same dropout."""
    model, _ = families.build("smolvlm")
    model.__class__ = type("Odd", (odd, type(model)), {})
    model = apply_tuning(model, TuningSection(type="lora", rank=2, dropout=0.5), seed=0)[0].train()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1) if parameter.requires_grad and parameter.ndim > 1 else None
    batch = text_batch(model)
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match="does more to its logits"):
        found = gradients(model, [batch], FAMILIES["smolvlm"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.manual_seed(5)
        again = gradients(model, [batch], FAMILIES["smolvlm"])
    monkeypatch.setattr(loss, "head_loss", lambda *_: None)
    torch.manual_seed(5)
    wanted = gradients(model, [batch], FAMILIES["smolvlm"])
    assert_same(found, wanted, 1e-7)
    assert_same(again, wanted, 1e-7)


def test_the_head_is_itself_again_after_a_call_that_failed():
    model, _ = families.build("smolvlm")
    batch = text_batch(model)
    with pytest.raises((ValueError, RuntimeError)):  # which of them is transformers' choice
        loss.loss_sum(model, replace(batch, inputs={**batch.inputs, "inputs_embeds": batch.labels}), keeps_logits=True)
    assert "forward" not in vars(model.lm_head)
    own = model.lm_head.forward
    model.lm_head.forward = own
    loss.loss_sum(model, batch, keeps_logits=True)
    assert vars(model.lm_head)["forward"] is own
