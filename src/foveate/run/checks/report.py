"""A check's result as JSON, and the JSON Schema of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import TypeAdapter

from foveate.run.checks.findings import Checked


def as_json(result: Checked) -> dict[str, Any]:
    """The result as JSON values: its fields, and `ok`."""
    return {"ok": result.ok, **dataclasses.asdict(result)}


def report_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what `foveate check --json` prints; docs/check.schema.json is this."""
    schema = TypeAdapter(Checked).json_schema(mode="serialization")
    schema["properties"] = {"ok": {"title": "Ok", "type": "boolean"}, **schema["properties"]}
    schema["title"] = "What `foveate check --json` prints"
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    for part in (schema, *schema["$defs"].values()):  # every field is always there
        part["required"] = list(part["properties"])
    return schema
