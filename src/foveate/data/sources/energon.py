"""Folders as Megatron-Energon keeps them: tar shards, and `.nv-meta` that says which shards make a split and what a sample is.

The layout follows Energon's documentation, "Dataset Format on Disk" (https://nvidia.github.io/Megatron-Energon/basic/data_prep.html)
and "Crude Datasets" (https://nvidia.github.io/Megatron-Energon/advanced/crude_datasets.html):

- `dataset.yaml`: `__class__: CrudeWebdataset` leaves samples as they are, so they become rows as those of any shard (members.py).
  A `sample_type` with a `field_map` (`caption: json[caption]`, `image: jpg,png`) becomes the columns that Foveate knows.
- `split.yaml` or `split.json`: `split_parts` names the shards of each split, by braces too; `exclude` names shards, and samples as
  `shard/key`, that are left out.
- `.info.json` or `.info.yaml`: `shard_counts`, which must be right where it is there.

No Python code of the folder is ever run: with `sample_loader`, an `adapter:` of the recipe gets the samples as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foveate.config.suggest import listed, nearest
from foveate.config.tree import parse_yaml
from foveate.data.sources.members import Member, row_of, value_of
from foveate.data.sources.patterns import spelled
from foveate.data.sources.shards import Shape, TarSource, plain_shards
from foveate.data.sources.tar import TarIndex, index_shards
from foveate.errors import DataError

META = ".nv-meta"
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "val"}
# Energon's sample types -> its fields -> the columns that the formats know; see "Available Sample Types" in its documentation.
_VQA = {"context": "question", "answers": "answers", "answer_weights": "answer_weights"}
_TYPES: dict[str, dict[str, str]] = {
    "CaptioningSample": {"image": "image", "caption": "caption"},
    "ImageSample": {"image": "image"},
    "ImageClassificationSample": {"image": "image", "label": "label", "label_name": "caption"},
    "VQASample": {"image": "image", **_VQA},
    "VidQASample": {"video": "video", **_VQA},
    "MultiChoiceVQASample": {"image": "image", "context": "question", "choices": "choices", "correct_choice_idx": "answer"},
    "OCRSample": {"image": "image", "text": "text"},
    "TextSample": {"text": "text"},
}
_FIELD = re.compile(r"([^\[\],]+)((?:\[[^\[\]]+\])*)")
_KEYS = re.compile(r"\[([^\[\]]+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMap:
    """A sample's row by a `field_map`. `fields`: column -> alternatives, each an ending and the keys to follow inside its value."""

    fields: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]

    def __call__(self, key: str, members: Sequence[Member]) -> dict[str, Any]:
        """DataError `missing_field` when a field is in none of its places."""
        row: dict[str, Any] = {"__key__": key}
        by_ending = {member.ending: member for member in members}
        for column, options in self.fields:
            found = next((place for place in options if place[0] in by_ending), None)
            if found is None:
                wanted = listed("[".join(place) + "]" * (len(place) - 1) for place in options)
                raise DataError(
                    f"no member {wanted} for {column!r}; the sample has {listed(by_ending)}", reason="missing_field",
                    fix="mend `field_map` in .nv-meta/dataset.yaml, or the sample",
                )  # fmt: skip
            row[column] = _follow(value_of(by_ending[found[0]]), found)
        return _weighed(row)


def is_energon(folder: Path) -> bool:
    """Whether a folder has Energon's `.nv-meta`."""
    return (folder / META).is_dir()


def open_energon(folder: Path, name: str, split: str, *, crude: bool) -> TarSource:
    """Open a split. `crude`: samples as they are, whatever `dataset.yaml` makes of them, because the recipe has an adapter.

    DataError `bad_energon` or `bad_split` when the folder's own files do not say what to read, or not what is there.
    """
    shape, identity = _shape(folder, crude)
    parts = _read_meta(folder, ("split.yaml", "split.json"))
    splits, where = _mapping(parts.get("split_parts"), folder / META / "split.yaml", "split_parts"), str(folder / META / "split.yaml")
    excluded = {text for entry in _texts(parts.get("exclude") or [], where, "exclude") for text in spelled(entry, where)}
    chosen = _choose(splits, split, where)
    named = [shard for entry in _texts(splits[chosen], where, chosen) for shard in spelled(entry, where)]
    shards = [shard for shard in named if shard not in excluded]
    if not shards:
        raise DataError(
            f"the split {chosen!r} has no shards" + (", all are excluded" if named else ""), reason="source_empty", where=where,
            fix="choose another `split:`",
        )  # fmt: skip
    found = plain_shards([folder / shard for shard in shards])
    index = index_shards([shard.plain for shard in found])
    _check_counts(folder, shards, index)
    kept = _without(index, shards, excluded, where)
    if not len(kept):
        raise DataError(f"the split {chosen!r} has no samples", reason="source_empty", where=where, fix="choose another `split:`")
    rule = json.dumps([shards, sorted(excluded), identity])
    return TarSource(name=name, shards=found, index=kept, shape=shape, identity=rule, root=folder)


def _shape(folder: Path, crude: bool) -> tuple[Shape, str]:
    """What makes a row of a sample, and its description for the fingerprint."""
    meta = _read_meta(folder, ("dataset.yaml", "dataset.json"))
    where = str(folder / META / "dataset.yaml")
    kind = str(meta.get("__class__", ""))
    if crude or kind.startswith("Crude"):
        return _parts(meta.get("part_filter"), where, crude)
    sample = meta.get("sample_type")
    named = str(sample.get("__class__", "")) if isinstance(sample, Mapping) else kind.replace("Webdataset", "Sample")
    if "sample_loader" in meta:
        raise DataError(
            f"its samples are made by Python code ({meta['sample_loader']}), which is not run", reason="bad_energon", where=where,
            fix="give the source an `adapter:` that takes a sample as it is",
        )  # fmt: skip
    if named not in _TYPES:
        near = nearest(named, _TYPES)
        raise DataError(
            f"the sample type {named or '(none)'} has no columns here" + (f"; did you mean {near}?" if near else ""), reason="bad_energon",
            where=where, fix="give the source an `adapter:`; known are CrudeWebdataset, " + listed(_TYPES),
        )  # fmt: skip
    fields = _mapping(meta.get("field_map"), where, "field_map")
    unknown = next((field for field in fields if field not in _TYPES[named]), None)
    if unknown is not None:
        near = nearest(unknown, _TYPES[named])
        hint = f"; did you mean {near!r}?" if near else ""
        raise DataError(
            f"`field_map` names {unknown!r}, which is no field of {named} that is used here{hint}",
            reason="bad_energon", where=where, fix=f"fields are {listed(_TYPES[named])}; for others give an `adapter:`",
        )  # fmt: skip
    mapped = tuple((_TYPES[named][field], _places(str(text), where)) for field, text in fields.items())
    return FieldMap(fields=mapped), json.dumps(mapped)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFilter:
    """A row of some members only, as `part_filter: [jpg, json]` has it."""

    endings: frozenset[str]

    def __call__(self, key: str, members: Sequence[Member]) -> dict[str, Any]:
        """As members.row_of, of the members with these endings."""
        return row_of(key, [member for member in members if member.ending in self.endings])


def _parts(chosen: Any, where: str, crude: bool) -> tuple[Shape, str]:
    if chosen is None or (crude and isinstance(chosen, str)):  # code that spares reading members; the recipe's adapter may read all
        return row_of, ""
    if isinstance(chosen, list):
        endings = frozenset(str(ending).lower() for ending in chosen)
        return PartFilter(endings=endings), json.dumps(sorted(endings))
    raise DataError(
        f"its `part_filter` is Python code ({chosen}), which is not run", reason="bad_energon", where=where,
        fix="write a list of endings, or take it out",
    )  # fmt: skip


def _places(text: str, where: str) -> tuple[tuple[str, ...], ...]:
    """`jpg,png` -> (jpg,), (png,); `json[a][b]` -> (json, a, b)."""
    places = []
    for option in text.split(","):
        match = _FIELD.fullmatch(option.strip())
        if match is None:
            raise DataError(
                f"`field_map` has {text!r}", reason="bad_energon", where=where, fix="write an ending, `json[key]`, or several with commas"
            )
        places.append((match[1].lower(), *_KEYS.findall(match[2])))
    return tuple(places)


def _follow(value: Any, place: tuple[str, ...]) -> Any:
    for key in place[1:]:
        inner = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            inner = value[int(key)]
        if inner is None:
            raise DataError(
                f"the member {place[0]} has no {key!r}" + (f" (it has {listed(value)})" if isinstance(value, Mapping) else ""),
                reason="missing_field", fix="mend `field_map` in .nv-meta/dataset.yaml, or the sample",
            )  # fmt: skip
        value = inner
    return value


def _weighed(row: dict[str, Any]) -> dict[str, Any]:
    """Of weighted answers, the one with the most weight is trained on; all are accepted."""
    weights, answers = row.pop("answer_weights", None), row.get("answers")
    if weights is None:
        return row
    numbers = isinstance(weights, list) and all(isinstance(weight, (int, float)) for weight in weights)
    if not numbers or not isinstance(answers, list) or len(weights) != len(answers) or not answers:
        raise DataError(
            "`answer_weights` are not a number for each of `answers`", reason="wrong_type", fix="write as many weights as answers"
        )
    return {**row, "answer": answers[max(range(len(weights)), key=weights.__getitem__)]}


def _choose(splits: Mapping[str, Any], split: str, where: str) -> str:
    filled = [part for part in splits if splits[part]]
    if not split:
        if len(filled) == 1:
            return filled[0]
        raise DataError(
            f"the folder has the splits {listed(filled) or '(none)'}", reason="bad_split", where=where, fix="name one with `split:`"
        )
    wanted = _SPLITS.get(split.lower(), split)
    found = next((part for part in splits if part == split), None) or next(
        (part for part in splits if _SPLITS.get(part.lower(), part) == wanted), None
    )
    if found is None:
        raise DataError(f"no split {split!r} here; there is {listed(splits)}", reason="bad_split", where=where, fix="change `split:`")
    return found


def _check_counts(folder: Path, shards: Sequence[str], index: TarIndex) -> None:
    """DataError when a shard holds another number of samples than the folder's own count."""
    files = [name for name in (".info.json", ".info.yaml", "info.yaml") if (folder / META / name).is_file()]
    if not files:
        return
    where = str(folder / META / files[0])
    counts = _mapping(_read_meta(folder, (files[0],)).get("shard_counts"), where, "shard_counts")
    held = np.bincount(index.shards, minlength=len(shards))
    for number, shard in enumerate(shards):
        if shard in counts and counts[shard] != int(held[number]):
            raise DataError(
                f"`shard_counts` says {counts[shard]} samples of {shard}, and it holds {int(held[number])}",
                reason="bad_energon", where=where,
                fix="copy the shard again, or run `energon prepare` again if it is right as it is",
            )  # fmt: skip


def _without(index: TarIndex, shards: Sequence[str], excluded: set[str], where: str) -> TarIndex:
    """The index without excluded samples. DataError for one that is in none of its shard's places: it would be trained on after all."""
    if not excluded:
        return index
    own = {text for text in excluded if any(text.startswith(f"{shard}/") for shard in shards)}
    names = [f"{shards[int(index.shards[place])]}/{index.key(place)}" for place in range(len(index))] if own else []
    lost = own - set(names)
    if lost:
        near = nearest(min(lost), names)
        raise DataError(
            f"`exclude` names {min(lost)}, and there is no such sample" + (f"; did you mean {near}?" if near else ""),
            reason="bad_energon", where=where, fix="mend or remove the line",
        )  # fmt: skip
    return index.taken(np.array([place for place, name in enumerate(names) if name not in own], dtype=np.int64)) if own else index


def _read_meta(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """One of the folder's YAML or JSON files, the first that is there."""
    path = next((folder / META / name for name in names if (folder / META / name).is_file()), None)
    if path is None:
        raise DataError(
            f"the folder has {META}, but no {names[0]} in it", reason="bad_energon", where=str(folder), fix="run `energon prepare` on it"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            return _mapping(json.loads(text), path, "the file")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", reason="bad_energon", where=str(path), fix="save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", reason="bad_energon", where=str(path), fix="mend it") from None
    root, problems = parse_yaml(text, label=str(path), base=path.parent)
    if problems or root is None:
        first = problems[0] if problems else None
        raise DataError(
            first.problem if first else "is empty", reason="bad_energon", where=first.where if first else str(path),
            fix=(first.fix if first else "") or "mend it",
        )  # fmt: skip
    return _mapping(root.plain(), path, "the file")


def _mapping(value: Any, where: Path | str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{what} is no mapping of names to values", reason="bad_energon", where=str(where), fix="write `name: value` lines")
    return value


def _texts(value: Any, where: str, what: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(f"{what} is no list of names", reason="bad_energon", where=where, fix="write `- shards/shard_000.tar` lines")
    return value
