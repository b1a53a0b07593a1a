"""OCR with structured ground truth: a picture of a document, and what it says as JSON (CORD, Donut's data sets, or any JSON column)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foveate.data.adapters.columns import Columns, fill
from foveate.data.adapters.parts import strip_nulls
from foveate.data.adapters.simple import dialogue
from foveate.errors import DataError
from foveate.types import Conversation, Row

PROMPT = "Read this document and write its contents as JSON."


class _Number(str):
    """A JSON number as it is written: 12.50 must not become 12.5 in an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OcrAdapter:
    """Roles: image, ground_truth, and system. The answer is compact JSON, keys and digits as in the data.

    Donut's `gt_parse` is taken out of the ground truth where it is there; of several `gt_parses`, the first is trained on and all are
    accepted. `needs_parse`: a ground truth without either is refused.
    """

    columns: Columns
    prompt: str = PROMPT
    needs_parse: bool = False

    def __call__(self, row: Row) -> Conversation:
        """DataError `bad_json` when the ground truth is no JSON, `missing_field` when it holds no parse."""
        self.columns.need(row, "image")
        column = self.columns.named["ground_truth"]
        truth = self.columns.need(row, "ground_truth")
        truth = read_json(truth, column) if isinstance(truth, str) else strip_nulls(truth)
        parses = [truth]
        if isinstance(truth, Mapping) and ("gt_parses" in truth or "gt_parse" in truth or self.needs_parse):
            parses = truth.get("gt_parses") or [truth.get("gt_parse")]
        elif self.needs_parse:
            parses = [None]
        if not isinstance(parses, list) or parses[0] is None:
            raise DataError(f"{column} has no gt_parse", reason="missing_field", fix="mend or remove the record")
        texts = tuple(write_json(parse) for parse in parses)
        return dialogue(self.columns, row, fill(self.prompt, row), texts[0], texts)


def read_json(text: str, column: str) -> Any:
    """The JSON's value, its numbers as they are written. DataError `bad_json`, also for a key that stands twice in one object."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_float=_Number, parse_int=_Number, parse_constant=_constant)
    except (json.JSONDecodeError, RecursionError, _NotJson) as error:
        raise DataError(f"{column} is not JSON: {error}", reason="bad_json", fix="mend or remove the record") from None


def write_json(value: Any) -> str:
    """One line of JSON. DataError `wrong_type` for a value that JSON has no form for, `bad_json` for one that is nested too deep."""
    try:
        return _written(value)
    except RecursionError:
        raise DataError("the ground truth is nested too deep", reason="bad_json", fix="mend or remove the record") from None


def _written(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key), ensure_ascii=False)}: {_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_written, value)) + "]"
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise DataError(f"the ground truth holds {value!r}", reason="wrong_type", fix="write text, numbers, lists and objects") from None


class _NotJson(Exception):
    """What Python reads as JSON, and no one else does."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _NotJson(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _constant(name: str) -> Any:
    raise _NotJson(f"{name} is no JSON number")
