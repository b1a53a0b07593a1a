"""A migration in the making: the foreign keys, what each became so far, and the recipe as it grows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from foveate.config.base import Section
from foveate.config.fields import members
from foveate.config.recipe import Recipe
from foveate.config.suggest import nearest
from foveate.migrate.read import Foreign
from foveate.migrate.report import VARIABLE, Migration, Note, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of a mapping table. `keys` are dotted, `*` stands for any rest.

    With `to`, code reads the key and says what became of it; without, the key ends as `state` for the reason `why`.
    """

    keys: str  # several, separated by spaces
    to: str = ""
    why: str = ""
    state: State = "unneeded"
    switch: bool = True  # false and 0 ask for nothing, and so end as unneeded

    def covers(self, key: str) -> bool:
        """True when one of the row's keys stands for `key`."""
        return any(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), key) for pattern in self.keys.split())


class Draft:
    """Values go in by `map`; every key is accounted for by `map`, `took`, or the table's own row in `rest`."""

    def __init__(self, foreign: Foreign, rows: Sequence[Row]) -> None:
        self.foreign, self.rows = foreign, rows
        self.leaves = dict(leaves(foreign.tree))
        self.notes: dict[str, Note] = {}
        self.values: dict[str, Any] = {}
        self.comments: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """The value at a dotted key as it was read; a mapping for a section's key."""
        found: Any = self.foreign.tree
        for word in key.split("."):
            if not isinstance(found, dict) or word not in found:
                return default
            found = found[word]
        return default if found is None else found

    def has(self, key: str) -> bool:
        """True when the key stands in the source with a value."""
        return self.get(key) is not None

    def number(self, key: str) -> float | None:
        """A number, also one written as text (`"1e-5"`). Anything else is noted as dropped, and None."""
        value = self._known(key)
        if isinstance(value, str):
            try:
                value = float(value.replace("_", ""))
            except ValueError:
                return self._refuse(key, "is not a number")
            if not math.isfinite(value):
                return self._refuse(key, "is not a number")
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            return value
        return self._refuse(key, "is not a number")

    def whole(self, key: str, least: int = 1) -> int | None:
        """A whole number of at least `least`. Anything else is noted as dropped, and None."""
        value = self.number(key)
        if value is None:
            return None
        if value != int(value) or value < least:
            return self._refuse(key, f"is not a whole number of at least {least}")
        return int(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false; anything else is noted as dropped, and the default."""
        value = self._known(key)
        if value is None:
            return default
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        if isinstance(value, bool):
            return value
        self._refuse(key, "is neither true nor false")
        return default

    def text(self, key: str) -> str | None:
        """Text, with a variable kept as such; a number as its text."""
        if key in self.foreign.kept:
            return self.foreign.kept[key].replace("${", VARIABLE + "{")
        value = self.get(key)
        if isinstance(value, (dict, list)):
            return self._refuse(key, "is not text")
        return None if value is None else str(value)

    def texts(self, key: str) -> list[str]:
        """A list of texts, also when it is written as `a,b`."""
        value = self.get(key)
        if isinstance(value, list):
            return [str(item) for item in value]
        text = self.text(key)
        return [item.strip() for item in text.split(",") if item.strip()] if text is not None else []

    def names(self, key: str) -> list[str]:
        """The same with each text once: a recipe names nothing twice."""
        return list(dict.fromkeys(self.texts(key)))

    def map(self, key: str, to: str, value: Any, why: str = "", state: State = "mapped") -> None:
        """Sets the recipe's `to`; None sets nothing. `key` in parentheses stands for a default of the source."""
        if value is None:
            return
        self.values[to] = value
        self.took(key, state, why, (to,))
        default = f"{key.strip('()')}: the default of {self.foreign.kind}"
        origin = f"{key}: {shown(self.get(key))}" if not key.startswith("(") else key[1:-1] if key.startswith("(no ") else default
        self.comments[to] = origin if state == "mapped" and not why else f"{origin}; {why}" if why else origin

    def took(self, key: str, state: State, why: str = "", to: tuple[str, ...] = ()) -> None:
        """Accounts for a key. The first word on it stands, but for further paths that it became."""
        if key.startswith("(") or key in self.leaves:
            known = self.notes.get(key)
            if known is not None and known.state == "dropped" and state != "dropped":
                return
            paths = tuple(dict.fromkeys((*(known.to if known else ()), *to)))
            self.notes[key] = Note(key=key, value=self.leaves.get(key), state=state, why=why or (known.why if known else ""), to=paths)
        elif self.has(key):  # a section: all that is in it
            for leaf in self.below(key):
                self.took(leaf, state, why, to)

    def below(self, section: str) -> list[str]:
        """The keys inside a section."""
        return [key for key in self.leaves if key.startswith(f"{section}.")]

    def rest(self) -> None:
        """Accounts for every key that no code has spoken of: by its row, or as unknown with the nearest known name."""
        for key, value in self.leaves.items():
            if key in self.notes:
                continue
            row = next((row for row in self.rows if row.covers(key)), None)
            if value is None or value in ({}, [], ""):
                self.took(key, "unneeded", "is empty")
            elif row is None:
                known = [name for row in self.rows for name in row.keys.split() if "*" not in name]
                near = nearest(key, known)
                self.took(key, "dropped", "unknown to Foveate" + (f"; did you mean {near}?" if near and near != key else ""))
            elif row.switch and value is not True and value in (False, 0):
                self.took(key, "unneeded", "is off")
            elif row.to:
                self.took(key, "dropped", row.why or f"nothing else asks for it, so it could not become {row.to}")
            else:
                self.took(key, row.state, row.why)

    def finish(self) -> Migration:
        """The migration, the recipe's keys in the reference's order and the notes in the source's."""
        for path in list(self.values):
            self._try(path)
        self.rest()
        order = list(self.leaves)
        notes = sorted(self.notes.values(), key=lambda note: order.index(note.key) if note.key in self.leaves else len(order))
        return Migration(
            kind=self.foreign.kind,
            source=self.foreign.path.name,
            recipe=_nested(self.values),
            notes=tuple(notes),
            comments=self.comments,
        )

    def _try(self, path: str) -> None:
        """Takes a value out again that the recipe's own type refuses, and says so of the key that it came from."""
        section, _, name = path.partition(".")
        holder = _section(section)
        field = holder.model_fields[name] if holder and name in holder.model_fields else Recipe.model_fields[section]
        try:
            TypeAdapter(Annotated[field.annotation, field]).validate_json(json.dumps(self.values[path]), strict=True)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            self.comments.pop(path, None)
            value = self.values.pop(path)
            for key, note in self.notes.items():
                if path in note.to:
                    why = f"{shown(value)} can't be {path}: {problem}"
                    self.notes[key] = Note(key=key, value=note.value, state="dropped", why=why)

    def _known(self, key: str) -> Any:
        """The value, unless it is a variable that is not set here."""
        if key in self.foreign.unset:
            return self._refuse(key, f"the environment variable in {self.get(key)!r} is not set; set it and migrate again")
        return self.get(key)

    def _refuse(self, key: str, problem: str) -> None:
        self.took(key, "dropped", problem if problem.startswith("the ") else f"{shown(self.get(key))} {problem}")


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that holds a value, dotted; a list counts as one value."""
    for name, value in tree.items():
        word = f'"{name}"' if "." in name else name
        key = f"{prefix}.{word}" if prefix else word
        if isinstance(value, dict) and value:
            yield from leaves(value, key)
        else:
            yield key, value


def shown(value: Any) -> str:
    """A value for a comment, cut where it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """`{"batch.size": 8}` as sections, all keys in the order of the reference."""
    nested: dict[str, Any] = {}
    for name in Recipe.model_fields:
        if name in values:
            nested[name] = values[name]
        section = _section(name)
        inner = {key: values[f"{name}.{key}"] for key in (section.model_fields if section else ()) if f"{name}.{key}" in values}
        if inner:
            nested[name] = inner
    return nested


def _section(name: str) -> type[Section] | None:
    """The type of one of the recipe's sections; None for `log`, which is a list."""
    kinds = members(Recipe.model_fields[name].annotation)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
