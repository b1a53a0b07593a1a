"""Local files as a source: one file, several by a pattern, or a folder of them. Which reader a file gets: records.py."""

from __future__ import annotations

import glob
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.config.suggest import listed
from foveate.data.sources.energon import is_energon, open_energon
from foveate.data.sources.folder import PLURAL, kind_of_media, list_files, metadata_files, open_media_folder
from foveate.data.sources.hub import open_saved
from foveate.data.sources.parquet import choose_files
from foveate.data.sources.patterns import expand, spelled
from foveate.data.sources.records import SUFFIXES, common_folder, kind_of, open_files
from foveate.data.sources.slices import Split
from foveate.data.sources.views import noted
from foveate.errors import DataError

if TYPE_CHECKING:
    from foveate.data.sources.source import Source

_TYPES = f"{', '.join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)} (JSON and CSV also as .gz or .zst) or .tar"
_SHEET = "save the sheet as `CSV UTF-8`"
_INSTEAD = {".xlsx": _SHEET, ".xls": _SHEET, ".ods": _SHEET, ".zip": "unpack it", ".pkl": "save it as Parquet: `frame.to_parquet(...)`"}
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "foveate_convert.json")
_OWN_CACHE = "cache-"  # what `datasets` puts beside an Arrow file: results of its own that hold the same rows again


def open_file(path: Path, name: str, split: Split) -> Source:
    """A single file, which is the split `train`, or the one that its name holds."""
    if split.name and split.name != "train" and split.name.lower() not in path.stem.lower():
        raise DataError(
            f"a single file has no split {split.name!r}", reason="bad_split", where=str(path),
            fix=f"write the slice alone, `split: {rest}`" if (rest := split.text.removeprefix(split.name)) else "leave `split` out",
        )  # fmt: skip
    kind = kind_of(path)
    if kind is None:
        raise DataError(
            f"files of type {''.join(path.suffixes[-2:]) or '(none)'} are not read", reason="source_unknown", where=str(path),
            fix=_INSTEAD.get(path.suffix.lower(), f"give {_TYPES}; or a folder of them, or of pictures, sounds or clips"),
        )  # fmt: skip
    return open_files([path], name, kind=kind)


def open_pattern(pattern: Path, name: str, split: Split) -> Source:
    """All files that a pattern names, as one source. DataError when there are none, or they are of several kinds or splits."""
    files = expand(str(pattern))
    kinds = Counter(kind_of(path) or "other" for path in files)
    if len(kinds) > 1 or "other" in kinds:
        raise DataError(
            f"the pattern names {_counted(kinds)}: {listed((path.name for path in files), 4)}",
            reason="source_unknown", where=str(pattern), fix="narrow it to files of one kind, or give each as a source of its own",
        )  # fmt: skip
    if split.name or any(glob.has_magic(one) for one in spelled(str(pattern), str(pattern))):  # braces alone name each file that is meant
        files = choose_files(files, split.name, common_folder(files))
    return open_files(files, name, kind=next(iter(kinds)))


def open_folder(path: Path, name: str, split: Split, *, crude: bool) -> Source:
    """A folder of files of one kind, of media, of Energon's shards (`crude`: an adapter reads them), or one that `datasets` saved."""
    if is_energon(path):
        return open_energon(path, name, split.name, crude=crude)
    files = list_files(path)
    if "dataset_dict.json" in files or {"state.json", "dataset_info.json"} <= set(files):
        return open_saved(str(path), name, split.name or "train")
    metadata, own = set(metadata_files(files)), []
    if any(file.endswith("dataset_info.json") for file in files):
        own = [file for file in files if file.endswith(".arrow") and file.rpartition("/")[2].startswith(_OWN_CACHE)]
    about = {*metadata, *own, *(file for file in files if file.rpartition("/")[2] in _ABOUT)}
    kinds = {file: kind for file in files if file not in about and (kind := kind_of(Path(file)))}
    counts = Counter(kinds.values())
    media = Counter(PLURAL[kind] for file in files if (kind := kind_of_media(file)))
    if counts and (len(counts) > 1 or media or metadata):
        what = _counted(counts + media + Counter({"metadata": len(metadata)}))
        only = f"`path: {path / next(iter(kinds))}`" if len(kinds) == 1 else f"a pattern such as `{path}/*{Path(next(iter(kinds))).suffix}`"
        raise DataError(f"the folder holds {what}", reason="source_unknown", where=str(path), fix=f"give what is meant by itself: {only}")
    if media or metadata:
        return open_media_folder(path, name, files, split)
    if not counts:
        raise DataError(
            f"the folder holds no data files, no pictures, sounds or clips, but {listed(files, 4) or 'nothing'}",
            reason="source_unknown", where=str(path), fix="give the data file itself, or a folder of files that are read: docs/data.md",
        )  # fmt: skip
    chosen = choose_files([path / file for file in kinds], split.name, path)
    source = open_files(chosen, name, kind=next(iter(counts)), root=path)
    notes = (f"{len(own):,} files that `datasets` cached beside its data are not used: {listed(own, 3)}",) if own else ()
    return noted(source, notes)


def _counted(kinds: Counter[str]) -> str:
    """`2 JSON files, 1 tar file and 40 pictures`."""
    texts = []
    for kind, count in kinds.items():
        if count:
            texts.append(f"{count:,} {kind if kind in PLURAL.values() else f'{kind} file' + 's' * (count > 1)}")
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
