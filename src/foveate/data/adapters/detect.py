"""`format: auto`: the one format that the columns, and the first records, fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from foveate.config.data import SourceSection
from foveate.config.suggest import listed
from foveate.data.adapters.choice import lettered_columns
from foveate.data.adapters.columns import MEDIA_ROLES, Columns, candidates
from foveate.data.adapters.objects import objects_of
from foveate.data.adapters.peek import Peek
from foveate.data.adapters.turns import listed_value
from foveate.errors import DataError

if TYPE_CHECKING:
    from foveate.data.sources.source import Source


def detect(section: SourceSection, chosen: Columns, source: Source, peek: Peek) -> tuple[str, str]:
    """The format and why. DataError `ambiguous_format` when several fit, `unknown_format` when none does."""
    fits = _Fits(chosen=chosen, source=source, peek=peek, section=section).all()
    if len(fits) == 1:
        return next(iter(fits.items()))
    if fits:
        raise DataError(
            f"the format could be {' or '.join(f'{form} ({why})' for form, why in fits.items())}",
            reason="ambiguous_format", where=source.name, fix="choose one with `format:`",
        )  # fmt: skip
    if not source.columns:
        source[0]  # raises what is wrong with it, if that is why
    raise DataError(
        f"the format can't be told from the columns {listed(source.columns) or '(none)'}" + (_no_turns(chosen, peek) or _nested(source)),
        reason="unknown_format", where=source.name,
        fix="name the columns, e.g. `columns: {image: ..., question: ..., answer: ...}`, or give an `adapter:` function",
    )  # fmt: skip


class _Fits:
    """Asks each format's question about one source."""

    def __init__(self, *, chosen: Columns, source: Source, peek: Peek, section: SourceSection) -> None:
        self._chosen, self._columns, self._peek = chosen, source.columns, peek
        self._tags, self._mapped = section.tags, section.columns

    def all(self) -> dict[str, str]:
        """Format -> why, for all that fit."""
        fits = dict([found]) if (found := self._turns()) else {}
        if self._has("question") and self._has("answer", "answers"):
            form, roles = self._question_form()
            fits[form] = self._seen(*roles)
        apart = not self._has("question", "messages")
        if apart and self._has("image", "video") and self._has("caption"):
            fits["caption"] = self._seen("image", "video", "caption")
        if apart and self._has("audio") and self._has("transcription"):
            fits["asr"] = self._seen("audio", "transcription")
        if apart and self._has("image") and any(map(_is_json, self._peek.values(self._chosen.named.get("ground_truth")))):
            fits["ocr"] = self._seen("image", "ground_truth")
        if apart and self._has("image") and self._boxes():
            fits["detection"] = self._seen("image", *(("objects",) if "objects" in self._chosen.named else ("bbox", "category")))
        return fits

    def _question_form(self) -> tuple[str, tuple[str, ...]]:
        """Which of the formats with a question column and an answer column it is; each holds all of the one before."""
        choices = next(self._peek.values(self._chosen.named.get("choices")), None)
        if isinstance(choices, (list, tuple, Mapping)) or (isinstance(choices, str) and choices.lstrip()[:1] == "["):
            return "multiple_choice", ("hint", "question", "choices", "answer", *MEDIA_ROLES)
        if lettered_columns(self._columns):
            return "multiple_choice", ("hint", "question", "answer", *MEDIA_ROLES)
        asked = self._chosen.named.get("question", "").lower()
        if "input" in self._chosen.named and ("instruction" == asked or "input" in self._mapped):
            return "alpaca", ("question", "input", "answer", "history", *MEDIA_ROLES)
        return "qa", ("question", "answer", "answers", "history", *MEDIA_ROLES)

    def _turns(self) -> tuple[str, str] | None:
        """`messages` or `sharegpt`, by the first record that has turns."""
        column = self._chosen.named.get("messages")
        for value in self._peek.values(column):
            try:
                turns = listed_value(value, "the turns")
            except DataError:  # said when the record is read for use
                continue
            if turns and isinstance(turns[0], Mapping):
                return self._turn_form(turns[0], column or "")
        return None

    def _turn_form(self, turn: Mapping[str, Any], column: str) -> tuple[str, str] | None:
        role, content = self._tags.get("role"), self._tags.get("content")
        if (role or "from") in turn and role in (None, "from"):
            return "sharegpt", f"column {column} holds from/{content or 'value'} turns"
        if (role or "role") in turn:
            return "messages", f"column {column} holds {role or 'role'}/{content or 'content'} turns"
        if set(turn) == {"human", "assistant"}:
            return "sharegpt", f"column {column} holds human/assistant rounds"
        return None

    def _boxes(self) -> bool:
        if "objects" not in self._chosen.named:
            return self._has("bbox") and self._has("category")
        for row in self._peek.rows():
            try:
                if objects_of(self._chosen, row) is not None:
                    return True
            except DataError:
                continue
        return False

    def _has(self, *roles: str) -> bool:
        return any(role in self._chosen.named or candidates(role, self._columns) for role in roles)

    def _seen(self, *roles: str) -> str:
        return f"columns {self._chosen.described(roles) or listed(self._columns)}"


def _is_json(value: Any) -> bool:
    return isinstance(value, (Mapping, list)) or (isinstance(value, str) and value.lstrip()[:1] in ("{", "["))


def _no_turns(chosen: Columns, peek: Peek) -> str:
    """A hint where a column of turns holds something else, such as the text that Python's `str` makes of a list."""
    column = chosen.named.get("messages")
    value = next(peek.values(column), None)
    if isinstance(value, str):
        return f"; {column} holds text that is no JSON list of turns: {value[:40]!r}"
    return f"; {column} holds no list of turns" if value is not None else ""


def _nested(source: Source) -> str:
    """A hint where one single object holds the records: in a list, as in `{"data": [...]}`, or by their numbers."""
    if len(source) != 1:
        return ""
    row = source[0]
    if {"images", "annotations"} <= row.keys():
        return "; it looks like a file of COCO, whose pictures and annotations lie apart: join them, a record a picture, with its `objects`"
    if len(row) > 1 and all(isinstance(value, Mapping) for value in row.values()):
        return "; its one record holds an object under each key: if those are the records, save them as a list"
    lists = [key for key, value in row.items() if isinstance(value, list) and value and isinstance(value[0], Mapping)]
    return f"; its one record holds a list under {lists[0]!r}: if those are the records, save that list alone as the file" if lists else ""
