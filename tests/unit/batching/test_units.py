"""Conversations whose features are known are encoded from their media's headers alone, exactly as if they had been decoded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from foveate.batching.units import Cacheable, UnitEncoder, unit_key
from foveate.config.media import MediaSection
from foveate.data.media.identity import identity
from foveate.data.store import Store
from foveate.encode.encoder import Encoder
from foveate.errors import DataError
from foveate.model.families import family_of, positions_of
from foveate.model.trial import is_pixels
from foveate.types import Conversation, Example, Image, Message, Text
from tests import families
from tests.conformance.subject import subject

FEATURES = {"model.get_image_features/pooler_output/": torch.ones(2, 3)}


def assert_same(found: Example, wanted: Example) -> None:
    """But for pixels."""
    assert torch.equal(found.input_ids, wanted.input_ids)
    assert torch.equal(found.labels, wanted.labels)
    assert (found.position_ids is None) == (wanted.position_ids is None)
    assert found.position_ids is None or torch.equal(found.position_ids, wanted.position_ids)
    assert found.token_inputs.keys() == wanted.token_inputs.keys()
    assert all(torch.equal(along, wanted.token_inputs[name]) for name, along in found.token_inputs.items())
    assert found.media.keys() == wanted.media.keys()
    for name, tensor in found.media.items():
        assert (tensor.dtype, tensor.ndim) == (wanted.media[name].dtype, wanted.media[name].ndim)
        assert is_pixels(name) or torch.equal(tensor, wanted.media[name]), name


@pytest.mark.parametrize(
    "name", ["smolvlm_split", "qwen2_5_vl", "qwen3_vl", "gemma3", "llava_onevision", "internvl", "voxtral", "idefics2", "llava_next"]
)
def test_an_outline_is_the_example_but_for_its_pixels(name: str) -> None:
    about = subject(name)
    for kind in about.kinds:
        for talk, example in zip(about.about(kind), about.examples[kind], strict=True):
            assert_same(about.encoder.outline(talk), example)
    for what, talk in about.odd.items():
        if what in about.examples:
            assert_same(about.encoder.outline(talk), about.examples[what][0])


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Encoder, UnitEncoder, Store]:
    """Bytes on the way (Qwen's lean images), as in training."""
    model, processor = families.build("qwen2_5_vl")
    encoder = Encoder(processor, positions=positions_of(model.config), lean=True)
    store = Store(tmp_path / "store", limit_bytes=10_000_000)
    cacheable = Cacheable(kinds=frozenset({"image"}), pixels=frozenset({"pixel_values"}), outlined=frozenset({"image"}))
    return encoder, UnitEncoder(encoder, family_of(model.config), cacheable, store=store, towers="t", rules=MediaSection()), store


def about(path: Path) -> Conversation:
    user = Message(role="user", parts=(Image(path=path), Text(text="what?")))
    return Conversation(messages=(user, Message(role="assistant", parts=(Text(text="a circle"),))))


def png(path: Path, *, cut: int = 0) -> Path:
    out = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 90, 3), dtype=np.uint8)).save(out, "PNG")
    path.write_bytes(out.getvalue()[: len(out.getvalue()) - cut])
    return path


def test_media_that_are_not_known_come_in_a_unit_with_their_key(parts: tuple, tmp_path: Path) -> None:
    encoder, units, _ = parts
    talk = about(png(tmp_path / "a.png"))
    plain, found = encoder(talk), units(talk)
    assert_same(found, plain)
    assert found.unit.key == unit_key("t", identity(talk))
    assert found.unit.features is None
    assert all(torch.equal(found.unit.media[name], tensor) for name, tensor in plain.media.items())
    assert found.media["pixel_values"].numel() == 1


def test_media_that_are_known_are_not_decoded(parts: tuple, tmp_path: Path) -> None:
    encoder, units, store = parts
    torn = about(png(tmp_path / "torn.png", cut=3000))
    with pytest.raises(DataError):
        units(torn)
    store.save(unit_key("t", identity(torn)), FEATURES)
    found = units(torn)
    assert found.unit.features.keys() == FEATURES.keys()
    assert not found.unit.media
    assert_same(found, encoder(about(png(tmp_path / "whole.png"))))


def test_text_alone_has_no_unit(parts: tuple) -> None:
    messages = (Message(role="user", parts=(Text(text="hi"),)), Message(role="assistant", parts=(Text(text="yes"),)))
    assert parts[1](Conversation(messages=messages)).unit is None
