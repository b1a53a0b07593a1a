"""How fast a run was, over all steps that its metrics.jsonl holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foveate.report.text import count, number, percent, short_flops


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Rates a second of wall time; operations and their share of the peak are None where some step's are not known."""

    tokens: float  # useful ones
    samples: float
    flops: float | None  # model operations, vision counted
    mfu: float | None
    waiting: float  # share of the time in which data was waited for

    @staticmethod
    def of(steps: Sequence[dict[str, Any]]) -> Speed | None:
        """From the lines of steps; None where there are none."""
        seconds = sum(line["time_s"] for line in steps)
        if not seconds:
            return None

        def rate(key: str) -> float:
            return sum(line[key] for line in steps) / seconds

        known, shared = (all(key in line for line in steps) for key in ("flops", "mfu"))
        return Speed(
            tokens=rate("tokens"),
            samples=rate("samples"),
            flops=rate("flops") if known else None,
            mfu=sum(line["mfu"] * line["time_s"] for line in steps) / seconds if shared else None,
            waiting=rate("data_wait_s"),
        )

    def __str__(self) -> str:
        parts = [f"{count(round(self.tokens))} useful tokens/s", f"{number(self.samples)} samples/s"]
        if self.flops is not None:
            share = f" (MFU {percent(self.mfu)})" if self.mfu is not None else ""
            parts.append(f"{short_flops(self.flops)}FLOP/s{share}")
        return ", ".join([*parts, f"{percent(self.waiting)} of the time waiting for data"])
