"""A folder of pictures as a source: captions from metadata.jsonl, metadata.csv, a .txt beside each picture, or class folders."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from foveate.config.suggest import listed
from foveate.data.files import combine, fingerprint_file
from foveate.data.jsonl import JsonlSource, open_jsonl
from foveate.errors import DataError
from foveate.types import Origin, Row

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif"})
_LONGEST_CELL = 1 << 30  # bytes
_METADATA = ("metadata.jsonl", "metadata.csv")


class FolderSource:
    """Pictures of a folder, by sorted relative path: rows of `image` and, where it is known, `caption`."""

    def __init__(self, *, name: str, path: Path, files: Sequence[str], labels: str) -> None:
        """`files`: paths relative to `path`, with forward slashes; `labels`: "text" (.txt beside), "class" (folder) or ""."""
        self.name, self.path, self.root, self._files, self._labels = name, path, path, tuple(files), labels
        self.columns = ("image", "caption") if labels else ("image",)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Row:
        """`image`: absolute path; `caption`: the text file's content or the class folder's name."""
        file = self.path / self._files[index]
        if not self._labels:
            return {"image": str(file)}
        if self._labels == "class":
            return {"image": str(file), "caption": file.parent.name.replace("_", " ")}
        beside = file.with_suffix(".txt")
        try:
            return {"image": str(file), "caption": beside.read_text(encoding="utf-8-sig").strip()}
        except FileNotFoundError:
            raise DataError(
                "this picture has no .txt beside it", reason="missing_field", where=str(file), fix=f"write {beside.name}"
            ) from None
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 at byte {error.start}", reason="bad_utf8", where=str(beside), fix="save it as UTF-8") from None

    def origin(self, index: int) -> Origin:
        """Names the picture itself."""
        return Origin(dataset=self.name, file=str(self.path / self._files[index]), row=int(index))

    def fingerprint(self) -> str:
        """Hash of the names and sizes of the pictures, and of the text files' content."""
        parts = [self._labels]
        for name in self._files:
            file = self.path / name
            parts.append(f"{name}:{file.stat().st_size}")
            beside = file.with_suffix(".txt")
            if self._labels == "text" and beside.exists():
                parts.append(fingerprint_file(beside))
        return combine(parts)


class CsvSource:
    """Rows of a metadata.csv, all values text. Held in memory: such a file describes pictures one by one, by hand."""

    def __init__(self, *, name: str, path: Path, columns: tuple[str, ...], rows: Sequence[Row]) -> None:
        self.name, self.path, self.root, self.columns, self._rows = name, path, path.parent, columns, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        """The row; empty cells are None."""
        return self._rows[index]

    def origin(self, index: int) -> Origin:
        """Names the row by its 0-based number, the header not counted."""
        return Origin(dataset=self.name, file=str(self.path), row=int(index))

    def fingerprint(self) -> str:
        """Content hash of the file."""
        return fingerprint_file(self.path)


def list_files(folder: Path) -> list[str]:
    """Relative paths of all files below, sorted, hidden ones and archives' droppings left out."""
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        found += [Path(base, name).relative_to(folder).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def open_folder(path: Path, name: str, files: Sequence[str]) -> FolderSource | JsonlSource | CsvSource:
    """The source that suits what the folder holds. DataError when it has pictures of both kinds, labelled and not."""
    metadata = [file for file in _METADATA if file in files]
    if len(metadata) > 1:
        raise DataError("the folder holds both metadata.jsonl and metadata.csv", reason="source_unknown", where=str(path), fix="keep one")
    if metadata == ["metadata.jsonl"]:
        return open_jsonl(path / "metadata.jsonl", name)
    if metadata:
        return open_csv(path / "metadata.csv", name)
    pictures = [file for file in files if Path(file).suffix.lower() in SUFFIXES]
    texts = set(files)
    with_text = [file for file in pictures if Path(file).with_suffix(".txt").as_posix() in texts]
    if with_text:
        return FolderSource(name=name, path=path, files=pictures, labels="text")
    nested = [file for file in pictures if "/" in file]
    if nested and len(nested) < len(pictures):
        loose = [file for file in pictures if "/" not in file]
        raise DataError(
            f"{len(nested)} pictures lie in class folders and {len(loose)} outside any: {listed(loose, 3)}",
            reason="source_unknown", where=str(path), fix="put each picture into a class folder, or describe all in metadata.jsonl",
        )  # fmt: skip
    return FolderSource(name=name, path=path, files=pictures, labels="class" if nested else "")


def open_csv(path: Path, name: str) -> CsvSource:
    """Read a .csv file with a header line. DataError when a row has more or fewer cells than the header."""
    csv.field_size_limit(_LONGEST_CELL)  # the default, 128 KiB, is less than a picture in base64
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            _check_header(header, path)
            rows = []
            for cells in filter(None, reader):
                if len(cells) != len(header):
                    raise DataError(
                        f"{len(cells)} cells, but the header has {len(header)}",
                        reason="bad_csv", where=f"{path}:{reader.line_num}", fix="quote cells that hold commas",
                    )  # fmt: skip
                rows.append({key: cell or None for key, cell in zip(header, cells, strict=True)})
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", reason="bad_utf8", where=str(path), fix="save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"not CSV: {error}", reason="bad_csv", where=f"{path}:{reader.line_num}", fix="mend this line") from None
    return CsvSource(name=name, path=path, columns=tuple(header), rows=rows)


def _check_header(header: Sequence[str], path: Path) -> None:
    twice = next((cell for at, cell in enumerate(header) if cell in header[:at]), None)
    if twice is not None:
        raise DataError(f"the header names {twice!r} twice", reason="bad_csv", where=f"{path}:1", fix="give each column its own name")
    if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), None)):
        raise DataError(
            f"its cells are separated by {other!r}, not by commas", reason="bad_csv", where=f"{path}:1", fix="export it with commas"
        )
