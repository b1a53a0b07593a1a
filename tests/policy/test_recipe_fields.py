"""Every field of the recipe says what it is for: the schema, the reference and the messages are made from it."""

from __future__ import annotations

from foveate.config.fields import all_fields
from foveate.config.recipe import Recipe


def test_every_field_is_described_in_a_sentence():
    fields = dict(all_fields(Recipe))
    assert len(fields) > 50
    assert [path for path, field in fields.items() if not (field.description or "").strip().endswith((".", "`."))] == []
