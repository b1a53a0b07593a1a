"""Quantised weights, as both trainers ask for them, and what can't be had beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from foveate.migrate.draft import Draft


def quantise(draft: Draft, key: str, bits: int, *, kind: str | None, double: bool, others: Sequence[str]) -> None:
    """Map `key`, which asks for 4 or 8 bits, to `model.quantize`; `others` say how 4 bits are made."""
    settings: dict[str, Any] = {"bits": bits}
    if bits == 4:
        settings |= {"type": kind or "nf4", "double": double}
    why = "of the language part; vision tower and projector stay as they are"
    draft.map(key, "model.quantize", settings, why, "changed")
    for other in others:
        draft.took(other, "mapped" if bits == 4 else "unneeded", "", ("model.quantize",))


def settle(draft: Draft) -> None:
    """Once the draft is whole: quantised weights are for adapters, and are not sharded."""
    if "model.quantize" not in draft.values:
        return
    if draft.values.get("tuning.type") == "full":
        del draft.values["model.quantize"], draft.comments["model.quantize"]
        why = "quantised weights can't be trained themselves"
        dropped = {key: replace(note, state="dropped", why=why, to=()) for key, note in draft.notes.items() if "model.quantize" in note.to}
        draft.notes |= dropped
    elif draft.values.get("parallel.strategy") == "fsdp2":
        why = "quantised weights are not sharded: every process has a whole copy"
        draft.values["parallel.strategy"] = "ddp"
        draft.comments["parallel.strategy"] = why
        changed = {key: replace(note, state="changed", why=why) for key, note in draft.notes.items() if "parallel.strategy" in note.to}
        draft.notes |= changed
