"""`split: train[10%:]` for local files, by the rules of Hugging Face `datasets`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from foveate.errors import DataError

_PATTERN = re.compile(r"^(?P<name>\w[\w.-]*)?(\[(?P<start>-?\d[\d_]*%?)?:(?P<stop>-?\d[\d_]*%?)?\])?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A split's name and slice as written; bounds are counts (`500`), or shares (`10%`), negative ones from the end."""

    text: str
    name: str = ""
    start: str = ""
    stop: str = ""

    def bounds(self, count: int) -> tuple[int, int]:
        """First record and the one after the last, of `count` records; bounds past the end are cut to it."""
        start = _bound(self.start, count) if self.start else 0
        stop = _bound(self.stop, count) if self.stop else count
        return start, max(start, stop)


def parse_split(text: str | None, where: str) -> Split:
    """Read `train`, `train[:500]`, `validation[10%:20%]` or `[10%:]`; None is the whole. DataError when it is neither."""
    if not text:
        return Split(text="")
    match = _PATTERN.match(text.strip())
    if match is None:
        raise DataError(
            f"split {text!r} can't be read", reason="bad_split", where=where, fix="write it like `train`, `train[:500]` or `train[10%:20%]`"
        )
    shares = [bound for bound in (match["start"], match["stop"]) if bound and bound.endswith("%")]
    beyond = next((share for share in shares if abs(int(share[:-1])) > 100), None)
    if beyond is not None:
        raise DataError(f"split {text!r} asks for {beyond}", reason="bad_split", where=where, fix="shares lie between 0% and 100%")
    return Split(text=text, name=match["name"] or "", start=match["start"] or "", stop=match["stop"] or "")


def _bound(text: str, count: int) -> int:
    number = int(text.rstrip("%"))
    # datasets rounds a share to the closest record; slices that meet (`[:10%]`, `[10%:]`) then neither overlap nor miss one.
    absolute = round(number * count / 100) if text.endswith("%") else number
    return min(max(absolute + count, 0) if absolute < 0 else absolute, count)
