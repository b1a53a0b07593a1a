"""OCR with structured ground truth: a picture of a document, and what it says as JSON (CORD, Donut's data sets, or any JSON column)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foveate.data import json_text
from foveate.data.adapters.columns import Columns, fill
from foveate.data.adapters.simple import dialogue
from foveate.errors import DataError
from foveate.types import Conversation, Row

PROMPT = "Read this document and write its contents as JSON."


@dataclass(frozen=True, slots=True, kw_only=True)
class OcrAdapter:
    """Roles: image, ground_truth, and system. The answer is compact JSON, keys and digits as in the data.

    Donut's `gt_parse` is taken out of the ground truth where it is there; of several `gt_parses`, the first is trained on and all are
    accepted. `needs_parse`: a ground truth without either is refused. `filled`: the source is of Arrow's kind, which fills the fields
    that an object lacks with null; those are left out again, while nulls of JSON are part of the answer.
    """

    columns: Columns
    prompt: str = PROMPT
    needs_parse: bool = False
    filled: bool = True

    def __call__(self, row: Row) -> Conversation:
        """DataError `bad_json` when the ground truth is no JSON, `missing_field` when it holds no parse."""
        self.columns.need(row, "image")
        column = self.columns.named["ground_truth"]
        truth = self.columns.need(row, "ground_truth")
        if isinstance(truth, str):
            truth = read_json(truth, column)
        elif self.filled:
            truth = _without_filled(truth)
        parses = [truth]
        if isinstance(truth, Mapping) and ("gt_parses" in truth or "gt_parse" in truth or self.needs_parse):
            parses = truth.get("gt_parses") or [truth.get("gt_parse")]
        elif self.needs_parse:
            parses = [None]
        if not isinstance(parses, list) or parses[0] is None:
            raise DataError(f"{column} has no gt_parse", reason="missing_field", fix="mend or remove the record")
        texts = tuple(write_json(parse) for parse in parses)
        return dialogue(self.columns, row, fill(self.prompt, row), texts[0], texts)


def _without_filled(value: Any) -> Any:
    """The value without the null fields of its objects. A null in a list is one that somebody wrote."""
    if isinstance(value, Mapping):
        return {key: _without_filled(item) for key, item in value.items() if item is not None}
    return [_without_filled(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_json(text: str, column: str) -> Any:
    """The JSON's value, its numbers as they are written. DataError `bad_json`, also for a key that stands twice in one object."""
    try:
        return json_text.read_json(text, strict=True)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{column} is not JSON: {error}", reason="bad_json", fix="mend or remove the record") from None


def write_json(value: Any) -> str:
    """One line of JSON. DataError `wrong_type` for a value that JSON has no form for, `bad_json` for one that is nested too deep."""
    try:
        return _written(value)
    except RecursionError:
        raise DataError("the ground truth is nested too deep", reason="bad_json", fix="mend or remove the record") from None


def _written(value: Any) -> str:
    if isinstance(value, json_text.Written) and math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key), ensure_ascii=False)}: {_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_written, value)) + "]"
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise DataError(f"the ground truth holds {value!r}", reason="wrong_type", fix="write text, numbers, lists and objects") from None
