"""JSON as it is written: a key that stands twice is refused, and a number keeps its digits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn


class Written(float):
    """A number with a point or an exponent; as text it is what the file says: 12.50 must not become 12.5 in an answer."""

    __slots__ = ("_text",)
    _text: str

    def __new__(cls, text: str) -> Written:
        """`text` is the number as JSON has it."""
        number = super().__new__(cls, text)
        number._text = text
        return number

    def __str__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[type[Written], tuple[str]]:
        return Written, (self._text,)


def read_json(text: str | bytes, *, strict: bool = False) -> Any:
    """The value. ValueError when it is no JSON, or an object has a key twice: one of the two values would be lost without a word.

    NaN and Infinity, which Python writes and no one else reads, are a ValueError when `strict`. RecursionError when nested too deep.
    """
    return json.loads(text, object_pairs_hook=_object, parse_float=Written, parse_constant=_refuse if strict else None)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for at, key in enumerate(keys) if key in keys[:at])
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
