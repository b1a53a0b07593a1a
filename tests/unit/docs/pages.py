"""Reads the pages under docs/: fenced blocks with the heading above them, and the first cells of tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "foveate"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    heading: str
    language: str
    text: str


def blocks(page: str, language: str) -> list[Block]:
    """The page's blocks in one language, in order."""
    text = (DOCS / page).read_text("utf-8")
    found = []
    for match in _FENCE.finditer(text):
        if match[1] == language:
            heading = [title[1] for title in _HEADING.finditer(text, 0, match.start())][-1]
            found.append(Block(heading=heading.strip("`"), language=language, text=match[2]))
    return found


def first_cells(page: str, title: str) -> list[str]:
    """What stands in backquotes in the first cells of the tables whose first column has this title."""
    cells, inside = [], False
    for line in (DOCS / page).read_text("utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.startswith(f"| {title} |"):
            inside = True
        elif inside:
            cells += re.findall(r"`([^`]+)`", line.split(" | ")[0])
    return cells
