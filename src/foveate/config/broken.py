"""What a rule answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A broken rule at `path`; `also` names other values it depends on (if one of them is wrong itself, this is not reported)."""

    path: str
    problem: str
    fix: str = ""
    also: tuple[str, ...] = ()


def twice(path: str, values: Sequence[str]) -> Iterator[Broken]:
    """A rule for each value that stands in the list more than once."""
    for value in dict.fromkeys(value for value in values if values.count(value) > 1):
        yield Broken(path=path, problem=f"names {value} twice", fix="name it once")
