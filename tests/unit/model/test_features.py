"""Features of frozen towers, made for each conversation alone: they are the model's own, come back from a store bit for bit, and are not
kept where something in them is random or trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from foveate.batching.collate import collate_packed, collate_padded
from foveate.batching.frames import as_images
from foveate.model.features import FeatureCut
from foveate.model.trial import CantCut, Learned, stand_in, tower_hash, try_out
from foveate.model.tuning import freeze_towers
from foveate.types import Batch, Example, Unit
from tests.conformance.subject import Subject, loss_of, segmented, subject

# One of each way that features are given: a tensor of images, a list of them, layers of them, tiles, masks, sounds, clips.
FAMILIES = ("smolvlm_split", "qwen2_5_vl", "qwen3_vl", "gemma3", "llava_onevision", "internvl", "voxtral", "glm4v", "granite4_vision")


@cache
def family(name: str) -> Subject:
    return subject(name)


def frozen(about: Subject) -> nn.Module:
    """A copy in which the language part alone is trained."""
    model = about.fresh()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("language_model.layers" in name or "text_model.layers" in name)
    freeze_towers(model)
    return segmented(model) if about.family.packs else model


def examples(about: Subject, kind: str) -> list[Example]:
    return [as_images(row) if about.family.frames_are_images else row for row in about.examples[kind]]


def tried(about: Subject, model: nn.Module, kind: str) -> Learned:
    rows = examples(about, kind)[:2]
    return try_out(model, about.padded(rows), [row.media for row in rows], autocast=None)


def apart(example: Example, learned: Learned, key: str, features: dict[str, Tensor] | None = None) -> Example:
    """The example with its media in a unit."""
    unit = Unit(key=key, media={} if features is not None else example.media, features=features)
    media = {name: stand_in(tensor) if name in learned.pixels else tensor for name, tensor in example.media.items()}
    return replace(example, media=media, unit=unit)


def batch_of(about: Subject, rows: Sequence[Example]) -> Batch:
    if about.family.packs:
        return collate_packed(rows, about.family)
    return collate_padded(rows, about.family, pad_id=about.encoder.pad_id)


def loss(about: Subject, model: nn.Module, batch: Batch, cut: FeatureCut) -> Tensor:
    with cut.using(batch):
        return loss_of(model, [batch], about.family)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_is_the_same_with_features_computed_and_found(name: str) -> None:
    about = family(name)
    model = frozen(about)
    for kind in about.kinds:
        rows = examples(about, kind)
        plain = float(loss_of(model, [batch_of(about, rows)], about.family).detach())
        learned = tried(about, model, kind)
        kept: dict[str, dict[str, Tensor]] = {}
        cut = FeatureCut(model, learned.methods, kept.__setitem__)
        units = [apart(row, learned, str(number)) for number, row in enumerate(rows)]
        computed = loss(about, model, batch_of(about, units), cut)
        assert float(computed.detach()) == pytest.approx(plain, rel=1e-5)
        assert kept.keys() == {"0", "1", "2"}
        found = [apart(row, learned, str(number), kept[str(number)]) for number, row in enumerate(rows)]
        assert torch.equal(loss(about, model, batch_of(about, found), cut), computed)
        mixed = [found[0], units[1], found[2]]
        assert torch.equal(loss(about, model, batch_of(about, mixed), cut), computed)
        assert (cut.seen, cut.found, cut.computed) == (9, 5, 4)
        del vars(learned.methods[0].module)[learned.methods[0].attribute]


def test_features_of_a_conversation_do_not_depend_on_its_neighbours_and_are_computed_once() -> None:
    about = family("qwen2_5_vl")
    model = frozen(about)
    learned = tried(about, model, "image")
    kept: dict[str, list[dict[str, Tensor]]] = {}
    cut = FeatureCut(model, learned.methods, lambda key, features: kept.setdefault(key, []).append(features))
    one, two, three = (apart(row, learned, str(number)) for number, row in enumerate(examples(about, "image")))
    ran: list[int] = []
    model.model.visual.register_forward_hook(lambda *_: ran.append(1))
    for rows in ([one], [two, one, three], [one, one, two, one]):
        loss(about, model, batch_of(about, rows), cut)
    assert len(ran) == 1 + 3 + 2
    for first, *others in kept.values():
        for other in others:
            assert all(torch.equal(first[name], other[name]) for name in first)


def test_several_images_in_a_conversation_and_text_beside_it() -> None:
    for name in ("smolvlm_split", "qwen3_vl", "llava_onevision"):
        about = family(name)
        model = frozen(about)
        learned = tried(about, model, "image")
        rows = [about.examples["two media"][0], about.examples["text alone"][0], about.examples["image"][1]]
        plain = float(loss_of(model, [batch_of(about, rows)], about.family).detach())
        kept: dict[str, dict[str, Tensor]] = {}
        cut = FeatureCut(model, learned.methods, kept.__setitem__)
        units = [row if not row.media else apart(row, learned, str(number)) for number, row in enumerate(rows)]
        computed = loss(about, model, batch_of(about, units), cut)
        assert float(computed.detach()) == pytest.approx(plain, rel=1e-5)
        found = [row if not row.media else apart(row, learned, str(number), kept[str(number)]) for number, row in enumerate(rows)]
        assert torch.equal(loss(about, model, batch_of(about, found), cut), computed)


def test_gradients_are_the_same() -> None:
    about = family("qwen2_5_vl")
    model = frozen(about)
    rows = examples(about, "image")
    loss_of(model, [batch_of(about, rows)], about.family).backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    learned = tried(about, model, "image")
    assert all(p.grad is None for p in model.parameters())  # the trial leaves nothing behind
    cut = FeatureCut(model, learned.methods, lambda *_: None)
    loss(about, model, batch_of(about, [apart(row, learned, str(number)) for number, row in enumerate(rows)]), cut).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name not in wanted)
        if name in wanted:
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-6)


def test_a_trial_leaves_the_model_and_the_random_numbers_as_they_were() -> None:
    about = family("qwen2_5_vl")
    model = frozen(about)
    before, attributes = torch.get_rng_state(), {name: set(vars(module)) for name, module in model.named_modules()}
    tried(about, model, "image")
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes


def test_a_trained_projector_is_noticed() -> None:
    about = family("qwen2_5_vl")
    model = frozen(about)
    next(iter(model.model.visual.merger.parameters())).requires_grad_(True)
    with pytest.raises(CantCut, match="is trained"):
        tried(about, model, "image")


def test_dropout_in_the_tower_is_noticed_and_in_the_language_part_is_not() -> None:
    about = family("smolvlm_split")
    model = frozen(about)
    for module in model.model.text_model.modules():
        if "attention_dropout" in vars(module):
            module.attention_dropout = 0.3
    model.train()
    tried(about, model, "image")
    for module in model.model.vision_model.modules():
        if "dropout" in vars(module):
            module.dropout = 0.3
    with pytest.raises(CantCut, match="random"):
        tried(about, model, "image")


def test_a_model_without_a_method_for_them_is_refused() -> None:
    about = family("qwen2_audio")
    with pytest.raises(CantCut, match="no method"):
        tried(about, frozen(about), "audio")


def test_the_hash_of_the_weights_is_that_of_the_towers_alone() -> None:
    about = family("qwen2_5_vl")
    model = frozen(about)
    learned = [tried(about, model, "image")]
    before = tower_hash(model, learned)
    unused, used = ("model.language_model.layers.0.mlp.up_proj",), ("model.visual.merger.ln_q", "model.visual.blocks.0.norm1")
    for name in (*unused, *used):
        weight = model.get_submodule(name).weight
        earlier = copy.deepcopy(weight.data)
        weight.data.flatten()[0] += 1e-3
        assert (tower_hash(model, learned) == before) is (name in unused), name
        weight.data.copy_(earlier)
    assert tower_hash(model, learned) == before


def test_outside_a_batch_of_units_the_methods_are_the_models_own() -> None:
    about = family("qwen2_5_vl")
    model = frozen(about)
    batch = batch_of(about, examples(about, "image"))
    plain = loss_of(model, [batch], about.family)
    cut = FeatureCut(model, tried(about, model, "image").methods, lambda *_: None)
    assert torch.equal(loss_of(model, [batch], about.family), plain)
    assert torch.equal(loss(about, model, batch, cut), plain)
    assert cut.seen == 0
