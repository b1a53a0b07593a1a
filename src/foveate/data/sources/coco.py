"""COCO's own captions file: one JSON object of images and annotations, joined to one record a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foveate.data.files import check_readable, fingerprint_file
from foveate.errors import DataError
from foveate.types import Origin, Row


class CocoSource:
    """Records {file_name, captions, image_id}, in the order of the file's images. Built by `open_coco`."""

    def __init__(
        self, *, name: str, path: Path, rows: tuple[tuple[str, int, tuple[str, ...]], ...], notes: tuple[str, ...] = ()
    ) -> None:
        """`rows`: (file name, the image's id, its captions)."""
        self.name, self.root, self.columns = name, path.parent, ("file_name", "captions", "image_id")
        self._path, self._rows, self.notes = path, rows, notes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        """The record; IndexError outside [0, len)."""
        if not 0 <= index < len(self._rows):
            raise IndexError(index)
        file, number, captions = self._rows[index]
        return {"file_name": file, "captions": list(captions), "image_id": number}

    def origin(self, index: int) -> Origin:
        """Names the record by the picture's number in the file."""
        return Origin(dataset=self.name, file=str(self._path), row=int(index))

    def fingerprint(self) -> str:
        """Content hash of the file."""
        return fingerprint_file(self._path)


def open_coco(path: Path, name: str) -> CocoSource | None:
    """Read captions_train2017.json or captions_val2017.json whole (120,000 pictures: about 100 MB) and join captions to pictures.

    Pictures without a caption are kept, and refused one by one. None for a list of records; DataError `source_unreadable` when it is
    yet another kind of file.
    """
    check_readable(path)
    if _is_list(path):
        return None
    try:
        with path.open(encoding="utf-8-sig") as file:
            whole = json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"not a whole JSON file: {error}", reason="source_unreadable", where=str(path), fix="download it again") from None
    if not isinstance(whole, Mapping) or not isinstance(whole.get("images"), list) or not isinstance(whole.get("annotations"), list):
        raise _other(path, "no object with `images` and `annotations`")
    captions: dict[int, list[str]] = {}
    try:
        for note in whole["annotations"]:
            captions.setdefault(note["image_id"], []).append(note["caption"].strip())
        rows = tuple((image["file_name"], image["id"], tuple(captions.get(image["id"], ()))) for image in whole["images"])
    except (KeyError, TypeError, AttributeError) as error:
        raise _other(path, f"an image or annotation without {_named(error)}") from None
    known = {number for _, number, _ in rows}
    lost = sum(len(texts) for number, texts in captions.items() if number not in known)
    notes = (f"{lost:,} captions are of images that the file does not list and are not used",) if lost else ()
    return CocoSource(name=name, path=path, rows=rows, notes=notes)


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _other(path: Path, what: str) -> DataError:
    fix = "give captions_train2017.json or captions_val2017.json; instances_*.json hold boxes, not captions"
    return DataError(f"{what}: not a captions file of COCO", reason="source_unreadable", where=str(path), fix=fix)


def _named(error: Any) -> str:
    return repr(error.args[0]) if isinstance(error, KeyError) else "its fields"
