"""From values in a row to message parts: media references in all their spellings, text."""

from __future__ import annotations

import base64
import binascii
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np
from PIL.Image import Image as Picture

from foveate.config.suggest import nearest
from foveate.data.adapters.clips import VIDEO_KEYS, with_limits
from foveate.data.json_text import read_json
from foveate.data.media.arrays import image_bytes, picture_bytes, sound_bytes
from foveate.data.media.sniff import sniff
from foveate.errors import DataError
from foveate.types import Audio, Image, MediaKind, Video

KINDS: dict[MediaKind, type[Image] | type[Audio] | type[Video]] = {"image": Image, "audio": Audio, "video": Video}
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_LONGEST_PATH = 4096
_PAYLOADS = frozenset({"bytes", "data", "path", "url", "file", "file_name", "array", "frames"})


def strip_nulls(value: Any) -> Any:
    """The value without null fields and null items: Arrow fills every absent field of a struct with null."""
    if isinstance(value, Mapping):
        return {key: strip_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [strip_nulls(item) for item in value if item is not None]
    return value


def media_part(kind: MediaKind, value: Any, root: Path | None) -> Image | Audio | Video:
    """A lazy reference from a path, URL, data URI, base64 text, bytes, `{bytes, path}`, picture object, array or list of frames.

    Relative paths are taken from `root`. Nothing is opened: whether a file exists is seen by data/media, whether a URL may be
    fetched by data/media/place.py.
    """
    make = KINDS[kind]
    if isinstance(value, (Image, Audio, Video)):
        if not isinstance(value, make):
            raise DataError(
                f"a {type(value).__name__} where the {kind} belongs", reason="wrong_type", fix=f"give a foveate {make.__name__}"
            )
        return value
    if isinstance(value, Mapping):
        return _from_mapping(kind, value, root)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return make(data=bytes(value))
    if isinstance(value, Path):
        return make(path=_placed(value, kind, root))
    if isinstance(value, str):
        return _from_text(kind, value.strip(), root)
    if kind == "image" and isinstance(value, Picture):
        return Image(data=picture_bytes(value))
    if kind == "image" and isinstance(value, np.ndarray):
        return Image(data=image_bytes(value))
    if kind == "video" and isinstance(value, (list, tuple, np.ndarray)):
        return _from_frames(value, root)
    fix = 'give a path, bytes, a data URI, {bytes, path}, or of decoded values {"array": [...]}'
    raise DataError(f"the {kind} is a {type(value).__name__}", reason="wrong_type", fix=fix)


def media_list(kind: MediaKind, value: Any, root: Path | None) -> list[Image | Audio | Video]:
    """The media of a column: none for null, one for a single value, several for a list."""
    if value is None:
        return []
    if isinstance(value, str) and value[:1] in ("[", "{"):
        value = _listed_in_text(value)
    if isinstance(value, (list, tuple)):
        return [media_part(kind, item, root) for item in value if item is not None]
    return [media_part(kind, value, root)]


def _listed_in_text(text: str) -> Any:
    """The list of paths, or the object, that a cell of a table holds as JSON; any other text is a path that begins with a bracket.

    DataError `wrong_type` for a list as Python's `str` writes it, which is in no file's name.
    """
    if text.startswith(("['", "{'")) and text.rstrip().endswith(("']", "}")):
        raise DataError("a list or object is written as Python's `str` does", reason="wrong_type", fix='write JSON: ["1.jpg", "2.jpg"]')
    try:
        value = read_json(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) or all(isinstance(item, (str, dict)) for item in value) else text


def text_value(value: Any, column: str) -> str:
    """A cell that must be text. Numbers are written out; anything else is a DataError."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):  # how data frames write an empty cell; never a text to train on
        raise DataError(f"{column} is {value}, which is no text", reason="wrong_type", fix="fill it in, or remove the record")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{column} is a {type(value).__name__}, not text", reason="wrong_type", fix="write it as text")


def _from_mapping(kind: MediaKind, value: Mapping[str, Any], root: Path | None) -> Image | Audio | Video:
    fields = strip_nulls(value)
    for key in ("bytes", "data"):
        if fields.get(key):
            raw = fields[key]
            return media_part(kind, raw, root) if isinstance(raw, (bytes, bytearray, memoryview)) else KINDS[kind](data=_decoded(raw, kind))
    for key in ("path", "url", "file", "file_name"):
        if fields.get(key):
            return _with_stretch(media_part(kind, fields[key], root), fields)
    if "array" in fields:  # as `datasets` hands out what it has decoded
        if kind == "audio":
            return Audio(data=sound_bytes(fields["array"], fields.get("sampling_rate")))
        found = Image(data=image_bytes(fields["array"])) if kind == "image" else _from_frames(fields["array"], root)
        return _with_stretch(found, fields)
    if kind == "video" and fields.get("frames"):
        return _with_stretch(_from_frames(fields["frames"], root), fields)
    raise DataError(f"the {kind} has neither bytes nor a path", reason=f"{kind}_missing", fix=f"give the {kind} or remove the record")


def _from_text(kind: MediaKind, text: str, root: Path | None) -> Image | Audio | Video:
    make = KINDS[kind]
    if not text:
        raise DataError(f"the {kind}'s path is empty", reason=f"{kind}_missing", fix=f"give the {kind} or remove the record")
    scheme = text[:12].split(":", 1)[0].lower() if ":" in text[:12] else ""
    if scheme == "data":
        return make(data=_data_uri(text, kind))
    if scheme == "file":
        return make(path=_file_url(text, kind))
    if "://" in text[:16]:
        return make(url=text)
    encoded = _base64(text)
    if encoded is not None:
        return make(data=encoded)
    if text.startswith("~"):
        raise DataError(f"the path {text!r} begins with `~`, which is not expanded", reason="media_path", fix="write the full path")
    if "\0" in text or len(text) > _LONGEST_PATH or not _is_encodable(text):
        raise DataError(f"the {kind}'s path can't be one ({text[:40]!r}...)", reason="media_path", fix="give a path, bytes or base64")
    return make(path=_placed(Path(text), kind, root))


def _is_encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _placed(path: Path, kind: MediaKind, root: Path | None) -> Path:
    if path.is_absolute():
        return path
    if root is None:
        raise DataError(
            f"the {kind}'s path {str(path)!r} is relative, and a hub data set has no folder", reason="media_path", fix="set `media_root:`"
        )
    return root / path


def _base64(text: str) -> bytes | None:
    """The bytes when the text is base64 of a known media format; a path such as `/9j/x.jpg` is none."""
    if len(text) < 48 or not _BASE64.fullmatch(text[:48]):
        return None
    try:
        if sniff(base64.b64decode(text[:48])) is None or not _BASE64.fullmatch(text):
            return None
        return base64.b64decode(text)
    except binascii.Error:
        return None


def _decoded(text: Any, kind: MediaKind) -> bytes:
    if not isinstance(text, str):
        raise DataError(f"the {kind}'s data is a {type(text).__name__}", reason="wrong_type", fix="give bytes or base64 text")
    if text.startswith("data:"):
        return _data_uri(text, kind)
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"the {kind}'s data is not base64", reason="bad_base64", fix="encode the file's bytes as base64") from None


def _data_uri(text: str, kind: MediaKind) -> bytes:
    head, comma, body = text.partition(",")
    if not comma:
        raise DataError(f"the {kind}'s data URI has no comma", reason="bad_base64", fix="write data:<type>;base64,<data>")
    return _decoded(body, kind) if head.endswith(";base64") else unquote_to_bytes(body)


def _file_url(text: str, kind: MediaKind) -> Path:
    try:
        parts = urlsplit(text)
        host, path = parts.netloc, unquote(parts.path)
    except ValueError:  # brackets around what is no address
        host = path = ""
    if host not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise DataError(f"the {kind}'s URL {text[:80]!r} names no local file", reason="media_path", fix="write file:///absolute/path")
    return Path(path)


def _from_frames(frames: Any, root: Path | None) -> Video:
    """A clip of pictures, each spelled as an image may be."""
    if not isinstance(frames, (list, tuple, np.ndarray)):
        raise DataError(f"the video's frames are a {type(frames).__name__}", reason="wrong_type", fix="give a list of images")
    parts = tuple(media_part("image", frame, root) for frame in frames)
    if not parts:
        raise DataError("the video is an empty list of frames", reason="video_missing", fix="give its frames, or remove the record")
    return Video(frames=parts)


def _with_stretch(medium: Image | Audio | Video, fields: Mapping[str, Any]) -> Image | Audio | Video:
    if not isinstance(medium, Video):
        return medium
    for key in fields:
        near = nearest(key, VIDEO_KEYS) if key not in VIDEO_KEYS and key not in _PAYLOADS else None
        if near is not None:  # any other field may be there for another reader; this one would be missed in silence
            raise DataError(f"the video has the unknown field {key!r}; did you mean {near!r}?", reason="unknown_field", fix="mend its name")
    return with_limits(medium, {key: fields[key] for key in VIDEO_KEYS if key in fields})
