"""`dataset`, `dataset_dir`, `val_size` and how records are prepared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError
from foveate.migrate.datasets import entry_of, read_info
from foveate.migrate.draft import Draft
from foveate.migrate.options import Options

_INFO = "dataset_info.json"
_IMAGE_PIXELS = 768 * 768  # LLaMA-Factory shrinks every image to this unless told otherwise


def build_data(draft: Draft, options: Options) -> None:
    """`data:` with a source for each data set. FoveateError when the list of data sets is not found, or lacks one."""
    names = draft.texts("dataset")
    if not names:
        raise FoveateError("names no dataset", where=str(draft.foreign.path), fix="a recipe for training names one in `dataset:`")
    online = str(draft.get("dataset_dir", "")) == "ONLINE"
    info = None if online else _find_info(draft, options)
    draft.took("dataset_dir", "mapped", f"{info} is read" if info else "names of the hub", ("data.train.*.path",))
    train = _sources(draft, names, info, options)
    held_out = _sources(draft, draft.texts("eval_dataset"), info, options)
    draft.took("dataset", "mapped", "", ("data.train.*.path",))
    draft.took("eval_dataset", "mapped", "", ("data.eval.*.path",))
    _adjust(draft, train + held_out)
    if not held_out:
        held_out = _split_off(draft, train)
    elif draft.has("val_size"):
        draft.took("val_size", "unneeded", "eval_dataset names held-out data")
    for split, sources in (("train", train), ("eval", held_out)):
        if sources:
            draft.values[f"data.{split}"] = sources
    for number, name in enumerate(names):
        draft.comments[f"data.train.{number}.{next(iter(train[number]))}"] = f"dataset: {name}"
    workers = draft.whole("dataloader_num_workers", least=0)
    if workers is not None:
        draft.map("dataloader_num_workers", "data.workers", workers)


def _find_info(draft: Draft, options: Options) -> Path:
    """The list of data sets: as given, in `dataset_dir` as seen from here, or from the recipe's folder and those above it."""
    if options.dataset_info is not None:
        path = options.dataset_info
        return path / _INFO if path.is_dir() else path
    folder = os.path.expanduser(str(draft.get("dataset_dir", "data")))
    if folder.startswith("REMOTE:"):
        raise FoveateError(
            "is on the hub", where=f"{draft.foreign.path}: dataset_dir: {folder}", fix=f"fetch its {_INFO}, and give it with --dataset-info"
        )
    home = Path(os.path.abspath(draft.foreign.path)).parent
    places = [Path.cwd() / folder, *(above / folder for above in (home, *home.parents))]
    found = next((place / _INFO for place in places if (place / _INFO).is_file()), None)
    if found is None:
        raise FoveateError(
            f"no {_INFO} in {folder}, seen from here or from the recipe's folder and those above it", where=str(draft.foreign.path),
            fix="give it with --dataset-info PATH",
        )  # fmt: skip
    return found


def _sources(draft: Draft, names: list[str], info: Path | None, options: Options) -> list[dict[str, Any]]:
    if info is None:
        return [{"hub": name, "split": "train"} for name in names]
    infos = read_info(info)
    media = draft.text("media_dir")
    folder = Path(os.path.expanduser(media)) if media is not None else None
    draft.took("media_dir", "mapped", "", ("data.train.*.media_root",))
    sources = []
    for name in names:
        entry = entry_of(infos, name, info, options.base, folder)
        sources.append(entry.source)
        for key, state, why in entry.notes:
            if state != "mapped":
                draft.took(f"({name}.{key})", state, why)
    return sources


def _adjust(draft: Draft, sources: list[dict[str, Any]]) -> None:
    """What LLaMA-Factory says once for all data sets, and a recipe for each source."""
    limit, system = draft.whole("max_samples"), draft.text("default_system")
    pixels, key = draft.whole("image_max_pixels"), "image_max_pixels"
    side = draft.whole("image_resolution")
    if pixels is None and side is not None:
        pixels, key = side * side, "image_resolution"
        draft.took(key, "changed", f"both sides at most {side} pixels there, {pixels} pixels in all here", ("data.train.*.max_pixels",))
    for source in sources:
        source |= {} if limit is None else {"limit": limit}
        source |= {} if system is None else {"system": system}
        source["max_pixels"] = pixels or _IMAGE_PIXELS
    draft.took("max_samples", "mapped", "", ("data.train.*.limit",))
    draft.took("default_system", "mapped", "", ("data.train.*.system",))
    draft.took(key if pixels is not None else "(image_max_pixels)", "mapped", "", ("data.train.*.max_pixels",))
    if draft.flag("streaming"):
        hub = [source for source in sources if "hub" in source]
        if len(sources) == 1 and hub:
            hub[0]["streaming"] = True
            draft.took("streaming", "mapped", "", ("data.train.*.streaming",))
        else:
            draft.took("streaming", "unneeded", "records are read one by one from disk, however many they are")


def _split_off(draft: Draft, train: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`val_size` as slices: the last records of each source, where LLaMA-Factory draws them at random from all."""
    size = draft.number("val_size")
    if not size:
        draft.took("val_size", "unneeded", "nothing is held out")
        return []
    share = size <= 1
    if any("count" in source for source in train) or (not share and len(train) > 1):
        draft.took("val_size", "manual", "name held-out data under data.eval, e.g. by `split: train[90%:]` and `train[:90%]`")
        return []
    kept = f"{100 - max(1, min(99, round(size * 100)))}%" if share else f"-{int(size)}"
    held_out = []
    for source in train:
        name = source.get("split", "") if "hub" in source else ""
        if "[" in name:
            draft.took("val_size", "manual", "a data set is a slice already; name held-out data under data.eval")
            return []
        held_out.append({**source, "split": f"{name}[{kept}:]"})
        source["split"] = f"{name}[:{kept}]"
        if "limit" in source and share:
            limit = source["limit"]
            source["limit"], held_out[-1]["limit"] = max(1, round(limit * (1 - size))), max(1, round(limit * size))
    exact = not share or abs(size * 100 - round(size * 100)) < 1e-9
    why = "the last records of each source; LLaMA-Factory draws them at random" + ("" if exact else ". Slices are whole percents")
    draft.took("val_size", "changed", why, ("data.eval",))
    return held_out
