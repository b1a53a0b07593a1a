"""What is known of a named set: where it lies, its splits, its columns, and how a record becomes a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.config.suggest import listed, nearest
from foveate.data.adapters.columns import Columns
from foveate.data.sources.slices import parse_split
from foveate.errors import DataError
from foveate.types import Adapter, Conversation, Row

if TYPE_CHECKING:
    from foveate.data.sources.source import Source

_HELD_OUT = ("validation", "val", "valid", "dev")  # names of the same thing: a recipe may write any of them


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSet:
    """A known data set. `columns` maps roles to the alternatives of a column's name; the first one present is taken."""

    hub: str
    columns: Mapping[str, tuple[str, ...]]
    build: Callable[[Columns, str | None], Adapter]  # (columns, the recipe's prompt) -> adapter
    splits: tuple[str, ...]  # those whose records have answers; () where they are not known, and the hub is asked
    hidden: tuple[str, ...] = ()  # those whose answers are not public
    absent: frozenset[str] = frozenset()  # roles that the data may have no column for
    empty: frozenset[str] = frozenset()  # roles that a record may have no value for
    config: str | None = None  # the configuration when the recipe names none
    configs: tuple[str, ...] = ()  # some configurations, where one must be named
    by_config: str | None = None  # another repository, which has the configurations (languages)
    by_split: Mapping[str, str] = field(default_factory=dict)  # split -> the repository that has it, where that is another one
    train: str = ""  # where there is no training split: what to train on instead
    local: str = ""  # for a set that is read from local files alone: how to get them
    open_file: Callable[[Path, str], Source | None] | None = None  # opens the set's own .json file; None when it is a list of records

    def place(self, config: str | None, split: str | None) -> tuple[str, str | None, str | None]:
        """Hub repository, configuration and split for what the recipe says. DataError when there is no such thing to train on."""
        if self.local:
            raise DataError("this set is read from local files", reason="source_missing", where=self.hub, fix=self.local)
        if config is None and self.configs:
            raise DataError(
                f"it has many configurations, e.g. {listed(self.configs)}", reason="bad_split", where=self.hub, fix="name one with `name:`"
            )
        repository = self.by_config if config and self.by_config else self.hub
        if split is None:
            return repository, config or self.config, None
        chosen = "+".join(self._split(piece) for piece in split.split("+"))
        name = parse_split(chosen.split("+")[0], self.hub).name
        if name in self.by_split and config is None:
            return self.by_split[name], None, chosen
        return repository, config or self.config, chosen

    def adapter(self, columns: Sequence[str], root: Path | None, prompt: str | None, where: str) -> tuple[str, Adapter]:
        """The log's description and the adapter. DataError when the data is not of this set's schema."""
        named = {}
        for role, names in self.columns.items():
            found = next((name for name in names if name in columns), None)
            if found is not None:
                named[role] = found
            elif role not in self.absent:
                near = nearest(names[0], columns)
                raise DataError(
                    f"no column {' or '.join(names)}" + (f" (did you mean {near!r}?)" if near else "")
                    + f"; this is not the schema of {self.hub} (columns are {listed(columns)})",
                    reason="missing_field", where=where, fix="name the format with `format:` and `columns:` instead of `use:`",
                )  # fmt: skip
        chosen = Columns(named=named, root=root)
        needed = tuple(role for role in named if role not in self.empty)
        hint = f" (the answers of {listed(self.hidden)} are not public)" if self.hidden else ""
        adapter = Filled(columns=chosen, needed=needed, adapter=self.build(chosen, prompt), hint=hint)
        return f"columns {chosen.described(self.columns)}", adapter

    def _split(self, text: str) -> str:
        """The split as the repository calls it, slice included."""
        name = parse_split(text, self.hub).name
        here = (*self.splits, *self.hidden)
        if name and name not in here and name in _HELD_OUT:
            other = next((known for known in _HELD_OUT if known in here), name)
            text, name = other + text.removeprefix(name), other
        if not name or not self.splits or name in self.splits:
            return text
        there = f"records with answers are in {listed(self.splits)}"
        if name in self.hidden:
            raise DataError(
                f"the answers of its split {name} are not public; {there}", reason="bad_split", where=self.hub, fix="change `split:`"
            )
        fix = self.train if name == "train" and self.train else f"write `split: {nearest(name, self.splits) or self.splits[0]}`"
        raise DataError(f"there is no split {name}; {there}", reason="bad_split", where=self.hub, fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """An adapter whose records must have a value in each of the `needed` roles: a picture that is not there is no text-only record."""

    columns: Columns
    needed: tuple[str, ...]
    adapter: Adapter
    hint: str

    def __call__(self, row: Row) -> Conversation:
        """DataError `missing_field` when a needed value is null or not there."""
        for role in self.needed:
            column = self.columns.named[role]
            if row.get(column) is None:
                hint = self.hint if role in ("answer", "answers", "caption") else ""
                raise DataError(
                    f"{column!r} has no value in this record{hint}", reason="missing_field", fix="fill it in, or remove the record"
                )
        return self.adapter(row)
