"""Features of frozen towers, kept: whether this run can, where, and what came of it (`media.cache_features`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from foveate.batching.collate import collate_padded
from foveate.batching.frames import as_images
from foveate.batching.units import Cacheable, UnitEncoder
from foveate.config.media import MediaSection
from foveate.data.files import why_unwritable
from foveate.data.media.kept import disk_folder
from foveate.data.store import Counts, Store
from foveate.dist.mesh import Ranks, all_reduce_sum, on_first
from foveate.dist.strategy import Strategy, unwrap
from foveate.encode.encoder import Encoder
from foveate.errors import DataError, FoveateError
from foveate.model.families import Family
from foveate.model.features import FeatureCut
from foveate.model.parts import part_of, trained_parts
from foveate.model.trial import CantCut, Learned, tower_hash, try_out
from foveate.run.auto import autocast_dtype
from foveate.run.prepare import Prepared
from foveate.run.ram import ram_folder
from foveate.run.specimens import about, picture, sound
from foveate.train.step import to_device
from foveate.types import Example, Image, Media, MediaKind, Video

_VERSION = 1  # raise when the same media would give other features, or be kept in another form
_SHAPES = ((64, 64), (48, 80))  # height, width of the two pictures that a model is tried with
_SECONDS = (0.6, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """What a run needs of its cache of features."""

    cut: FeatureCut
    encode: UnitEncoder
    store: Store

    def summary(self) -> str:
        """What the cache did, all ranks together; every rank must ask."""
        seen, found, computed = map(int, all_reduce_sum([self.cut.seen, self.cut.found, self.cut.computed]))
        done = Counts.of(all_reduce_sum(astuple(self.store.counts)))
        if not seen:
            return "cached features: no media were trained on whose features are kept"
        return (
            f"cached features: of {seen:,} conversations' media {found:,} ({found / seen:.0%}) were found and {computed:,} computed; "
            f"{done.kept()}"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """What the trial of a model found out, kind by kind."""

    learned: dict[str, Learned] = field(default_factory=dict)
    outlined: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)  # kind -> why its features are not kept


def require_folder(section: MediaSection) -> None:
    """Raises FoveateError where nothing can be kept in `media.cache_folder`; nothing is asked of the folder when it is unset."""
    if "disk" not in (section.cache_features, section.cache_decoded) or section.cache_folder is None:
        return
    if why := why_unwritable(Path(section.cache_folder)):
        raise FoveateError(why, where="media.cache_folder", fix="choose another place, or leave it out for Foveate's own cache folder")


@contextmanager
def keeping_features(
    prepared: Prepared, prepared_model: nn.Module, strategy: Strategy, ranks: Ranks, *, notes: list[str]
) -> Iterator[Features | None]:
    """The run's cache of features; None where there is none. What is kept in memory is gone after the block.

    Args:
        prepared_model: as it is trained, spread over the processes.
        notes: gets what was found out.
    """
    section, model, autocast = prepared.recipe.media, unwrap(prepared_model), autocast_dtype(prepared.recipe, ranks)
    if section.cache_features == "off":
        yield None
        return
    try:
        _check(prepared, model, strategy.name)
        found = _try_all(prepared.encoder, prepared.family, model, device=ranks.device, autocast=autocast)
    except CantCut as why:
        notes.append(f"media.cache_features has no effect: {why}")
        yield None
        return
    with _folder(section, ranks) as (folder, where):
        both = section.cache_features == section.cache_decoded  # in one folder, each with half of what is written there unseen
        store = Store(folder, limit_bytes=int(section.cache_gb * 1e9), writers=ranks.world * (2 if both else 1))
        features = _made(prepared, model, found, store, ranks=ranks, autocast=autocast)
        kinds = " and ".join(found.learned)
        notes.append(f"features of {kinds} input are computed once and kept {where}, at most {section.cache_gb:g} GB")
        notes += [f"features of {kind} input are not kept: {why}" for kind, why in found.refused.items()]
        yield features


def _check(prepared: Prepared, model: nn.Module, strategy: str) -> None:
    """Raises CantCut for what is seen without trying."""
    if prepared.encoder is None:
        raise CantCut("data.collate makes the batches")
    if strategy == "fsdp2":
        raise CantCut("fsdp2 shards the towers, which every process must then run with all others")
    trained = trained_parts(model, part_of(model)) & {"vision", "projector"}
    if trained:
        raise CantCut(f"{' and '.join(sorted(trained))} {'are' if len(trained) > 1 else 'is'} trained, so features change at every step")


def _try_all(encoder: Encoder, family: Family, model: nn.Module, *, device: torch.device, autocast: torch.dtype | None) -> _Found:
    """Raises CantCut where nothing can be kept."""
    found = _Found()
    for kind in get_args(MediaKind):
        if kind not in encoder.kinds:
            continue
        try:
            talks = [about(medium) for medium in _media(kind, encoder.rate_hz)[: 1 if kind in family.alone else 2]]
            examples = [encoder(talk) for talk in talks]
            rows = [as_images(row) if family.frames_are_images else row for row in examples]
            batch = to_device(collate_padded(rows, family, pad_id=encoder.pad_id), device)
            media = [{name: tensor.to(device) for name, tensor in row.media.items()} for row in rows]
            found.learned[kind] = try_out(model, batch, media, autocast=autocast)
            pixels = found.learned[kind].pixels
            if all(_alike(encoder.outline(talk), example, pixels) for talk, example in zip(talks, examples, strict=True)):
                found.outlined.add(kind)
        except (CantCut, DataError) as why:
            found.refused[kind] = str(why)
    if not found.learned:
        raise CantCut("; ".join(f"{kind}: {why}" for kind, why in found.refused.items()))
    return found


def _made(
    prepared: Prepared, model: nn.Module, found: _Found, store: Store, *, ranks: Ranks, autocast: torch.dtype | None
) -> Features:
    methods = {method.name: method for learned in found.learned.values() for method in learned.methods}

    cut = FeatureCut(model, tuple(methods.values()), store.save)
    made_with = {
        "version": _VERSION,
        "encoder": prepared.encoder.fingerprint(media_only=True),
        "weights": tower_hash(model, list(found.learned.values())),
        "methods": {name: repr(method.joint) for name, method in sorted(methods.items())},
        "config": prepared.config.to_dict(),
        "autocast": str(autocast),
        # Both round differently in the towers, too; the other kernels are for packed rows of the language part alone.
        "eager": prepared.recipe.model.attention == "eager",
        "compiled": prepared.recipe.train.compile,
        "device": torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else ranks.device.type,
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
    }
    towers = hashlib.sha256(json.dumps(made_with, sort_keys=True, default=str).encode()).hexdigest()
    pixels = frozenset().union(*(method.pixels for method in methods.values()))
    cacheable = Cacheable(kinds=frozenset(found.learned), pixels=pixels, outlined=frozenset(found.outlined))
    encode = UnitEncoder(prepared.encoder, prepared.family, cacheable, store=store, towers=towers, rules=prepared.recipe.media)
    return Features(cut=cut, encode=encode, store=store)


@contextmanager
def _folder(section: MediaSection, ranks: Ranks) -> Iterator[tuple[Path, str]]:
    """(where features are kept, how a note calls it), the same on every rank."""
    if section.cache_features == "disk":
        kept = on_first(ranks, lambda: disk_folder(section))
        yield kept, f"in {kept}"
        return
    with ram_folder(ranks, size=int(section.cache_gb * 1e9)) as (folder, in_ram):
        yield folder, "in memory" if in_ram else f"in {folder} until the run ends (too little shared memory)"


def _alike(outlined: Example, example: Example, pixels: frozenset[str]) -> bool:
    """Whether an example made from headers is the same but for the content of its media."""
    one, other = _tensors(outlined, pixels), _tensors(example, pixels)
    return one.keys() == other.keys() and all(
        not tensor.is_meta and tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]) for name, tensor in one.items()
    )


def _tensors(example: Example, pixels: frozenset[str]) -> dict[str, Tensor]:
    found = {"ids": example.input_ids, "labels": example.labels, **{f"token {name}": along for name, along in example.token_inputs.items()}}
    found |= {f"media {name}": tensor for name, tensor in example.media.items() if name not in pixels}
    return found if example.position_ids is None else found | {"positions": example.position_ids}


def _media(kind: MediaKind, rate_hz: int) -> list[Media]:
    """Two small media of noise, of different sizes."""
    noise = np.random.default_rng(0)
    if kind == "audio":
        return [sound(noise.normal(0, 3000, int(rate_hz * seconds)), rate_hz) for seconds in _SECONDS]
    if kind == "image":
        return [_picture(noise, shape) for shape in _SHAPES]
    return [Video(frames=tuple(_picture(noise, shape) for _ in range(4)), frames_fps=2.0, num_frames=4) for shape in _SHAPES]


def _picture(noise: np.random.Generator, shape: tuple[int, int]) -> Image:
    return picture(noise.integers(0, 256, (*shape, 3), dtype=np.uint8))
