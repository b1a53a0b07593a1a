"""What became of a foreign recipe: the recipe, and one note for each of its keys."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from foveate.config.dump import dump_values

State = Literal["mapped", "changed", "manual", "dropped", "unneeded"]
# In the order in which they matter to a reader.
STATES: dict[State, str] = {
    "dropped": "has no counterpart; the run will differ",
    "manual": "needs a decision or a step of yours",
    "changed": "has a counterpart that is not quite the same",
    "unneeded": "has no counterpart and needs none",
    "mapped": "means the same under the new name",
}
VARIABLE = "\ue000"  # stands for the `$` of a variable that is kept in the recipe, where a plain `${` would be escaped


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What became of one key. `to` are paths of the recipe; keys in parentheses are settings that the source leaves to its defaults."""

    key: str
    value: Any
    state: State
    why: str = ""
    to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """The outcome. `comments` say beside each value of `recipe` where it comes from."""

    kind: str  # the other trainer's name
    source: str
    recipe: dict[str, Any]
    notes: tuple[Note, ...]
    comments: dict[str, str]

    @property
    def dropped(self) -> tuple[Note, ...]:
        """The notes of what the recipe can't express."""
        return tuple(note for note in self.notes if note.state == "dropped")

    def summary(self) -> str:
        """`61 settings: 2 dropped, 3 manual, ...`."""
        counts = Counter(note.state for note in self.notes)
        return f"{len(self.notes)} settings: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])

    def text(self) -> str:
        """The recipe as YAML, each value with its origin, and what needs attention at the top."""
        head = [f"# From {self.source} ({self.kind}) by `foveate migrate`. {self.summary()}."]
        for note in self.notes:
            if note.state in ("dropped", "manual"):
                head.append(f"#   {note.state}: {note.key}" + (f": {_one_line(note.why)}" if note.why else ""))
        body = dump_values(self.recipe, {path: _one_line(text) for path, text in self.comments.items()})
        return "\n".join(head) + "\n" + body.replace(VARIABLE, "$")


def _one_line(text: str) -> str:
    """Text for a comment: one line, and only characters that YAML allows."""
    plain = "".join(character if character.isprintable() or character == VARIABLE else " " for character in text)
    return " ".join(plain.split()).replace(VARIABLE, "$")
