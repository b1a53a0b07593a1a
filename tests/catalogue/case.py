"""What an entry of the catalogue of bad inputs is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any] | bytes  # bytes: the line as it stands, broken JSON and all


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A record that must go to the ledger. `make` writes its files into a folder and gives its row."""

    title: str
    reason: str
    says: str  # what the ledger's problem or the error must hold
    make: Callable[[Path], Row]
    source: str = "qa"  # the file, and so the format, that it stands in


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A record that looks odd and is used all the same."""

    title: str
    make: Callable[[Path], Row]
    source: str = "qa"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """An input that stops the run before its first step. `make` changes a good set in the folder and gives overrides of its recipe."""

    title: str
    says: Sequence[str]  # what standard error must hold: the place, and the fix
    make: Callable[[Path], Sequence[str]]


def row(**fields: Any) -> Callable[[Path], Row]:
    """A row that needs no files of its own."""
    return lambda _folder: fields


def line(text: bytes) -> Callable[[Path], Row]:
    """A line as it stands."""
    return lambda _folder: text


def holding(folder: str, name: str, content: bytes | None, kind: str, question: str, answer: str) -> Callable[[Path], Row]:
    """A row about FOLDER/NAME with this content; None leaves the file out."""

    def make(place: Path) -> Row:
        (place / folder).mkdir(exist_ok=True)
        if content is not None:
            (place / folder / name).write_bytes(content)
        return {kind: f"{folder}/{name}", "question": question, "answer": answer}

    return make
