"""docs/families.md from the rows of the matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.conformance.columns import COLUMNS

Row = dict[str, tuple[bool | None, str]]
_SIGNS = {True: "✓", None: "–", False: "✗"}
_MAY_BE_IMPOSSIBLE = ("packs", "shares media", "parts", "recomputes")
_TALKATIVE = {"encodes", "LoRA by part"}  # columns whose cells say more than a tick

INTRO = """\
# Families

<!-- Written by docs/make_families.py, which runs every cell. Don't edit it: run the script. -->

Each row is a tiny random model of the family's real architecture, built with its real processor class and a tokenizer made on the spot.
Every cell is a test that ran, and `tests/conformance` runs them all again: a cell that no longer holds fails there. Weights of published
models are not loaded in it, so a row says that the architecture trains right, not how well a checkpoint does. To try *your* recipe
and processor on a tiny model of the family, run `foveate rehearse recipe.yaml`.

What the columns mean:

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A line of the matrix: its name, the class that was trained and the row."""

    name: str
    architecture: str
    row: Row


def line_of(family: Family) -> str:
    """The family's line of the table."""
    cells = []
    for column, (state, says) in family.row.items():
        sign = _SIGNS[state]
        cells.append(f"{sign} {says}" if state and column in _TALKATIVE and says else sign)
    return f"| `{family.name}` | {family.architecture} | " + " | ".join(cells) + " |"


def why_not(family: Family) -> list[str]:
    """A line for each cell that is not green."""
    return [f"- `{family.name}`, {column}: {says}" for column, (state, says) in family.row.items() if state is not True]


def is_green(family: Family) -> bool:
    """Every column that applies holds: none failed, and none but packing, and what goes with it, was impossible."""
    return all(state or (state is None and column in _MAY_BE_IMPOSSIBLE) for column, (state, _) in family.row.items())


def page(families: list[Family], unbuilt: Mapping[str, str], versions: str) -> str:
    """The whole page."""
    columns = "\n".join(f"- **{name}**: {first_line(column.__doc__)}" for name, column in COLUMNS.items())
    header = "| family | class | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 2)
    green = sum(map(is_green, families))
    reasons = [line for family in families for line in why_not(family)]
    return "\n".join(
        [
            INTRO + columns + "\n",
            f"**{green} of {len(families)} rows are green** in every column that applies; {len(unbuilt)} families have no row, with the "
            f"reason below. {versions}\n",
            header,
            *map(line_of, families),
            "",
            "## Cells that say no\n",
            *(reasons or ["None."]),
            "",
            "## Families without a row\n",
            *(f"- `{name}`: {reason}" for name, reason in sorted(unbuilt.items())),
            "",
        ]
    )


def first_line(text: str | None) -> str:
    """The first line of a docstring."""
    return (text or "").strip().split("\n")[0]
