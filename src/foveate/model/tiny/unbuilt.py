"""Families of transformers that have no tiny model here, with the reason; docs/families.md lists them."""

from __future__ import annotations

UNBUILT: dict[str, str] = {}
