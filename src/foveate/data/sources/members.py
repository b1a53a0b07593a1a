"""From the members of a WebDataset sample to a row.

| member | becomes |
|---|---|
| `x.json`, an object | its fields, a column each |
| `x.json`, a list of turns | the column `conversations` |
| `x.txt` | `text` |
| `x.cls` | `label`, a number |
| `x.jpg`, `x.wav`, `x.mp4` ... | `image`, `audio`, `video`; several of a kind `images`, `audios`, `videos`, in the order of the archive |
| `x.question.txt`, `x.meta.json` | `question`, `meta` |
| anything else | its bytes, under its ending |

A medium that the JSON names (`"image": "x.jpg"`, or `"0.jpg"` for the member `x.0.jpg`) stands where it is named, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foveate.config.roles import ROLES
from foveate.data.json_text import read_json
from foveate.data.media.sniff import CLIPS, IMAGES, SOUNDS, SUFFIXES
from foveate.errors import DataError
from foveate.types import MediaKind

# In this order: mp4 is a clip although sounds come in it too, m4a a sound. `image`, `audio` and `video` serve media of unknown format.
_SUFFIX_KINDS: dict[str, MediaKind] = {
    **dict.fromkeys((suffix for form in CLIPS for suffix in SUFFIXES[form]), "video"),
    **dict.fromkeys((suffix for form in SOUNDS for suffix in SUFFIXES[form] if suffix not in SUFFIXES["mp4"]), "audio"),
    **dict.fromkeys((suffix for form in IMAGES for suffix in SUFFIXES[form]), "image"),
    "m4a": "audio", "image": "image", "audio": "audio", "video": "video",
}  # fmt: skip
_MEDIA_KEYS = frozenset(
    [name for kind in ("image", "audio", "video") for name in ROLES[kind]]
    + ["image_url", "audio_url", "video_url", "input_image", "input_audio", "input_video", "url", "path", "file"]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file of a sample; `data` is None where only the columns are asked for and it is a medium."""

    name: str  # with the folders of the archive
    ending: str  # in lower case: `jpg`, `img1.png`
    data: bytes | None

    @property
    def suffix(self) -> str:
        """The last part of the ending."""
        return self.ending.rpartition(".")[2]

    @property
    def stem(self) -> str:
        """The ending without its last part: `img1`; "" for most."""
        return self.ending.rpartition(".")[0]

    @property
    def last(self) -> str:
        """The name without folders."""
        return self.name.rpartition("/")[2]


def media_kind(ending: str) -> MediaKind | None:
    """The kind of medium that an ending stands for."""
    return _SUFFIX_KINDS.get(ending.rpartition(".")[2])


def row_of(key: str, members: Sequence[Member]) -> dict[str, Any]:
    """The row: see the table above. DataError `bad_sample` when two members give one column, `bad_json` or `bad_utf8` for a bad one."""
    row: dict[str, Any] = {"__key__": key}
    came: dict[str, str] = {"__key__": "the key"}
    media = {member.name: member for member in members if media_kind(member.ending)}
    for member in members:
        if member.name in media:
            continue
        for column, value in _columns(member).items():
            _put(row, came, column, value, f".{member.ending}")
    named: set[str] = set()
    if media:
        places = _Places(media, named)
        row = {column: places.resolved(value, column, top=True) for column, value in row.items()}
    left: dict[MediaKind, list[Any]] = {}
    for member in media.values():
        if member.name not in named:
            left.setdefault(_SUFFIX_KINDS[member.suffix], []).append(value_of(member))
    for kind, values in left.items():
        for column in (kind, f"{kind}s"):
            if row.get(column) is not None:
                raise DataError(
                    f"the {kind} comes from the column {column!r} of {came[column]}, and from {len(values)} member"
                    f"{'s' if len(values) > 1 else ''} that it does not name",
                    reason="bad_sample", fix=f"name the members there ({values[0]['path']!r}), or take {column!r} out",
                )  # fmt: skip
        row[kind if len(values) == 1 else f"{kind}s"] = values[0] if len(values) == 1 else values
    return row


def value_of(member: Member) -> Any:
    """A member decoded: JSON, text, a number (`cls`), `{bytes, path}` of a medium, else bytes."""
    kind, data = _SUFFIX_KINDS.get(member.suffix), member.data
    if kind is not None:
        if data == b"":
            raise DataError(f"the {kind} is empty (0 bytes)", reason=f"{kind}_empty", where=member.last, fix="restore it")
        return {"bytes": data, "path": member.last}
    if member.suffix == "json":
        return _json(member)
    if member.suffix in ("txt", "text", "cls"):
        text = _text(member).strip()  # the line break at the end of a file is no part of a caption
        return int(text) if member.suffix == "cls" and text.isdecimal() and text.isascii() else text
    return data


def _columns(member: Member) -> Mapping[str, Any]:
    value = value_of(member)
    if member.suffix == "json" and not member.stem:
        if isinstance(value, dict):
            return value
        turns = isinstance(value, list) and value and all(isinstance(item, dict) and ("from" in item or "role" in item) for item in value)
        return {"conversations" if turns else "json": value}
    if member.suffix in ("txt", "text", "cls", "json"):
        return {member.stem or {"cls": "label"}.get(member.suffix, "text"): value}
    return {member.ending: value}


def _put(row: dict[str, Any], came: dict[str, str], column: str, value: Any, member: str) -> None:
    if row.get(column) is not None and value is not None and row[column] != value:
        raise DataError(
            f"the column {column!r} comes from {came[column]} and from {member}, and they differ",
            reason="bad_sample", fix="leave one of them out",
        )  # fmt: skip
    if row.get(column) is None:
        row[column], came[column] = value, member


class _Places:
    """Puts media where the JSON names them."""

    def __init__(self, media: Mapping[str, Member], named: set[str]) -> None:
        self._named = named
        self._anywhere: dict[str, Member] = {}  # names that nothing but a file has
        self._in_media: dict[str, Member] = {}  # what is a name only where a medium is expected: `jpg`
        for member in media.values():
            for text in (member.name, member.last, member.ending):
                self._in_media.setdefault(text, member)
                if "." in text:
                    self._anywhere.setdefault(text, member)

    def resolved(self, value: Any, key: str, *, top: bool = False) -> Any:
        """The value with the media it names in their places; texts of a conversation are never taken for names."""
        if isinstance(value, dict):
            return {name: self.resolved(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self.resolved(item, key, top=top) for item in value]
        if not isinstance(value, str):
            return value
        member = None
        if key.lower() in _MEDIA_KEYS:
            member = self._in_media.get(value) or self._in_media.get(value.rpartition("/")[2])
        elif top:
            member = self._anywhere.get(value)
        if member is None:
            return value
        self._named.add(member.name)
        return value_of(member)


def _json(member: Member) -> Any:
    text = _text(member)
    try:
        return read_json(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON: {error.msg}", reason="bad_json", where=f"{member.last}:{error.lineno}:{error.colno}", fix="mend the member"
        ) from None
    except (ValueError, RecursionError) as error:  # a key twice, a number of thousands of digits, or nesting without end
        raise DataError(f"not JSON that can be read: {error}", reason="bad_json", where=member.last, fix="mend the member") from None


def _text(member: Member) -> str:
    try:
        return (member.data or b"").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", reason="bad_utf8", where=member.last, fix="write the member as UTF-8") from None
