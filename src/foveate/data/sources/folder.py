"""A folder of pictures, sounds or clips as a source: described by metadata files, a .txt beside each medium, or class folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.config.suggest import listed
from foveate.data.files import combine, fingerprint_file
from foveate.data.sources.members import media_kind
from foveate.data.sources.metadata import NAMES, of_split, open_metadata, splits_of, unnamed
from foveate.data.sources.parquet import SPLITS
from foveate.data.sources.slices import Split
from foveate.data.sources.views import noted
from foveate.errors import DataError
from foveate.types import MediaKind, Origin, Row

if TYPE_CHECKING:
    from foveate.data.sources.source import Source

PLURAL = {"image": "pictures", "audio": "sounds", "video": "clips"}
_TOLD = {"image": "caption", "audio": "transcription", "video": "caption"}  # what a .txt beside a medium holds
_APART = ("readme", "license", "licence", "citation", "thumbs.db", "dataset_info", "state.json")  # beginnings of names that hold no data


class FolderSource:
    """The media of a folder, by sorted relative path: rows of `image`, `audio` or `video` and, where it is known, a text."""

    def __init__(self, *, name: str, path: Path, files: Sequence[str], kind: MediaKind, labels: str, notes: tuple[str, ...] = ()) -> None:
        """`files`: paths relative to `path`, with forward slashes; `labels`: "text" (.txt beside), "class" (folder) or ""."""
        self.name, self.path, self.root, self.notes = name, path, path, notes
        self._files, self._kind, self._labels = tuple(files), kind, labels
        self._column = _TOLD[kind] if labels == "text" else "caption"
        self.columns = (kind, self._column) if labels else (kind,)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Row:
        """The medium's absolute path, and the text file's content or the class folder's name."""
        file = self.path / self._files[index]
        if not self._labels:
            return {self._kind: str(file)}
        if self._labels == "class":
            return {self._kind: str(file), self._column: file.parent.name.replace("_", " ")}
        beside = file.with_suffix(".txt")
        try:
            return {self._kind: str(file), self._column: beside.read_text(encoding="utf-8-sig").strip()}
        except FileNotFoundError:
            problem = f"this {PLURAL[self._kind].removesuffix('s')} has no .txt beside it"
            raise DataError(problem, reason="missing_field", where=str(file), fix=f"write {beside.name}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 at byte {error.start}", reason="bad_utf8", where=str(beside), fix="save it as UTF-8") from None

    def origin(self, index: int) -> Origin:
        """Names the medium itself."""
        return Origin(dataset=self.name, file=str(self.path / self._files[index]), row=int(index))

    def fingerprint(self) -> str:
        """Hash of the names and sizes of the media, and of the text files' content."""
        parts = [self._kind, self._labels]
        for name in self._files:
            file = self.path / name
            parts.append(f"{name}:{file.stat().st_size}")
            beside = file.with_suffix(".txt")
            if self._labels == "text" and beside.exists():
                parts.append(fingerprint_file(beside))
        return combine(parts)


def list_files(folder: Path) -> list[str]:
    """Relative paths of all files below, sorted, hidden ones and archives' droppings left out."""
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        found += [Path(base, name).relative_to(folder).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def kind_of_media(file: str) -> MediaKind | None:
    """What a file is by its suffix."""
    return media_kind(Path(file).suffix.lower().lstrip("."))


def metadata_files(files: Sequence[str]) -> list[str]:
    """The metadata files among `files`; a Parquet file of that name is one only where there are media beside it."""
    media = any(map(kind_of_media, files))
    return [file for file in files if (base := file.rpartition("/")[2]) in NAMES and (media or NAMES[base] != "Parquet")]


def open_media_folder(path: Path, name: str, files: Sequence[str], split: Split) -> Source:
    """The source that suits what a folder of media holds; `files` are the relative paths of all files in it.

    DataError when it has splits and none is named, media of several kinds, or labelled and unlabelled ones.
    """
    metadata, media = metadata_files(files), [file for file in files if kind_of_media(file)]
    splits = _splits(metadata, media)
    rooted = [file for file in metadata if "/" not in file]
    if rooted:
        return _open_rooted(path, name, metadata, media, splits, split)
    if split.name and (path / split.name).is_dir():
        splits = [split.name]
    if splits and (split.name or len(splits) > 1):
        inner = path / _chosen(path, splits, split)
        return open_media_folder(inner, name, list_files(inner), Split(text=split.text))
    _refuse_split(path, split)
    if metadata:
        source = open_metadata(path, name, metadata)
        return noted(source, unnamed(source, media))
    return _open_undescribed(path, name, files, media)


def _open_rooted(
    path: Path, name: str, metadata: Sequence[str], media: Sequence[str], splits: Sequence[str], split: Split
) -> Source:
    """One metadata file describes the whole folder; where its rows are of several splits, those of one are taken."""
    nested = [file for file in metadata if "/" in file]
    if nested:
        raise DataError(
            f"there are metadata files in the folder and below it: {listed(metadata, 4)}",
            reason="source_unknown", where=str(path), fix="keep one for the whole folder, or one in each folder of media",
        )  # fmt: skip
    source = open_metadata(path, name, metadata)
    present = splits_of(source, splits) if splits else []
    if len(present) > 1:
        folder = _chosen(path, present, split)
        return noted(of_split(source, folder, present), unnamed(source, [file for file in media if file.startswith(f"{folder}/")]))
    if not any(_same_split(folder, split.name) for folder in present):
        _refuse_split(path, split)
    return noted(source, unnamed(source, media))


def _splits(metadata: Sequence[str], media: Sequence[str]) -> list[str]:
    """Top folders that hold a split, and no class of that name: they have folders or metadata of their own, or there are no others."""
    inside = [file for file in (*metadata, *media) if "/" in file]
    tops = sorted({file.partition("/")[0] for file in inside})
    splits = [top for top in tops if top.lower() in SPLITS]
    deep = [file for file in inside if file.count("/") > 1 or file in metadata]
    if any(file.partition("/")[0] in splits for file in deep):
        return splits
    return splits if len(splits) > 1 and splits == tops else []


def _chosen(path: Path, splits: Sequence[str], split: Split) -> str:
    """The folder of the split that is named. DataError when none is, or it is not there."""
    if not split.name:  # reading them all would train on the held-out media
        raise DataError(
            f"the folder holds the splits {listed(splits)}",
            reason="bad_split", where=str(path), fix=f"choose one, e.g. `split: {splits[-1]}`",
        )  # fmt: skip
    same = [folder for folder in splits if folder == split.name] or [folder for folder in splits if _same_split(folder, split.name)]
    if not same:
        raise DataError(
            f"no folder {split.name!r} here, only {listed(splits)}", reason="bad_split", where=str(path), fix="change `split:`"
        )
    return same[0]


def _same_split(folder: str, name: str) -> bool:
    return SPLITS.get(folder.lower(), folder) == SPLITS.get(name.lower(), name)


def _refuse_split(path: Path, split: Split) -> None:
    if split.name not in ("", "train"):
        raise DataError(f"no folder {split.name!r} here", reason="bad_split", where=str(path), fix="change `split:`")


def _open_undescribed(path: Path, name: str, files: Sequence[str], media: Sequence[str]) -> Source:
    kinds = Counter(map(kind_of_media, media))
    if len(kinds) > 1:
        counts = " and ".join(f"{count:,} {PLURAL[kind]}" for kind, count in kinds.most_common())
        raise DataError(
            f"the folder holds {counts}, and no metadata.jsonl that says what goes together",
            reason="source_unknown", where=str(path), fix="describe them in metadata.jsonl, or give a folder of one kind",
        )  # fmt: skip
    kind = next(iter(kinds))
    texts = {file for file in files if file.endswith(".txt")}
    beside = texts & {Path(file).with_suffix(".txt").as_posix() for file in media}
    nested = [file for file in media if "/" in file]
    if not beside and nested and len(nested) < len(media):
        loose = [file for file in media if "/" not in file]
        raise DataError(
            f"{len(nested)} {PLURAL[kind]} lie in class folders and {len(loose)} outside any: {listed(loose, 3)}",
            reason="source_unknown", where=str(path), fix="put each into a class folder, or describe them all in metadata.jsonl",
        )  # fmt: skip
    labels = "text" if beside else "class" if nested else ""
    other = [file for file in files if file not in beside and not kind_of_media(file) and not _is_about(file)]
    notes = (f"{len(other):,} other files are not used: {listed(other, 3)}",) if other else ()
    return FolderSource(name=name, path=path, files=media, kind=kind, labels=labels, notes=notes)


def _is_about(file: str) -> bool:
    """Whether a file is about the folder and no part of the data."""
    return file.rpartition("/")[2].lower().startswith(_APART)
