"""YAML 1.2 text -> a tree of values that each know where they were written.

Foveate reads events from ruamel.yaml and types the scalars itself by the YAML 1.2 core schema. The reasons: PyYAML is
YAML 1.1 (`1e-5` is a string, `no` is False, `12:30:45` is 45045), both keep the last of two equal keys in some modes, and
an alias bomb of 271 bytes expands to 43 million nodes. On events, all of that can be refused at its own line, in one pass.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from foveate.config.suggest import nearest
from foveate.errors import Problem

MAX_DEPTH = 32  # a recipe has five levels; beyond this it is a mistake or an attack
Scalar = str | int | float | bool | None

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(slots=True)
class Node:
    """A value and where it stands. `base` is the folder that relative paths in it refer to; `quoted` text is never retyped."""

    value: Scalar | dict[str, Node] | list[Node]
    where: str
    base: Path
    quoted: bool = False

    def plain(self) -> object:
        """The value without its marks: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def core_scalar(text: str) -> Scalar:
    """The type that unquoted `text` has in YAML 1.2's core schema; out-of-range numbers become infinite floats."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    # Python refuses to read integers of more than 4,300 digits; no field comes near either way.
    if _INT.fullmatch(text):
        return int(text) if len(text) < 400 else math.inf
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.lower().replace(".", ""))
    return text


class _Refused(Exception):
    """Stops the reading of a text whose structure can't be followed any further."""


class _Composer:
    """Builds nodes from events, noting every problem; one per text."""

    def __init__(self, events: Iterator[Event], label: str, base: Path, numbered: bool) -> None:
        self.events, self.label, self.base, self.numbered = events, label, base, numbered
        self.problems: list[Problem] = []

    def where(self, event: Event) -> str:
        return f"{self.label}:{event.start_mark.line + 1}" if self.numbered else self.label

    def refuse(self, event: Event, path: str, problem: str, fix: str) -> None:
        self.problems.append(Problem(where=self.where(event), path=path, problem=problem, fix=fix))

    def node(self, event: Event, path: str, depth: int = 0) -> Node:
        if depth > MAX_DEPTH:
            self.refuse(event, path[:60], f"is nested more than {MAX_DEPTH} deep", "a recipe has five levels at most")
            raise _Refused
        if isinstance(event, AliasEvent):
            self.refuse(event, path, f"an alias (*{event.anchor}) is not allowed", "write the value out")
            return self.leaf(event, None)
        if isinstance(event, NodeEvent) and event.anchor:
            self.refuse(event, path, f"an anchor (&{event.anchor}) is not allowed", f"remove `&{event.anchor}` and write the value out")
        if isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent) and event.tag:
            self.refuse(event, path, f"a tag ({event.tag}) is not allowed", "remove it; the schema knows each value's type")
        if isinstance(event, MappingStartEvent):
            return self.mapping(event, path, depth)
        if isinstance(event, SequenceStartEvent):
            return self.sequence(event, path, depth)
        return self.scalar(event, path)

    def leaf(self, event: Event, value: Scalar, quoted: bool = False) -> Node:
        return Node(value, self.where(event), self.base, quoted)

    def scalar(self, event: ScalarEvent, path: str) -> Node:
        plain = event.implicit[0]
        value = core_scalar(event.value) if plain else event.value
        if isinstance(value, float) and not math.isfinite(value):
            self.refuse(event, path, f"{event.value} is not a finite number", "write a number, or quote it if it is meant as text")
            value = None
        return self.leaf(event, value, quoted=not plain)

    def sequence(self, event: SequenceStartEvent, path: str, depth: int) -> Node:
        items: list[Node] = []
        for item in self.events:
            if isinstance(item, SequenceEndEvent):
                break
            items.append(self.node(item, join(path, len(items)), depth + 1))
        return Node(items, self.where(event), self.base)

    def mapping(self, event: MappingStartEvent, path: str, depth: int) -> Node:
        children: dict[str, Node] = {}
        lines: dict[str, str] = {}
        for key in self.events:
            if not isinstance(key, NodeEvent):  # the mapping's end
                break
            name = self.key(key, path, depth)
            child = self.node(next(self.events), join(path, name or "?"), depth + 1)
            if name is None:
                continue
            if name in children:
                self.refuse(key, join(path, name), f"stands twice (first at {lines[name]})", "keep one of the two")
                continue
            children[name], lines[name] = child, self.where(key)
            child.where = self.where(key)  # a block, or an empty value, begins below its key; people look for the key
        return Node(children, self.where(event), self.base)

    def key(self, event: Event, path: str, depth: int) -> str | None:
        if not isinstance(event, ScalarEvent) or event.anchor or event.tag:
            self.refuse(event, path, "a key must be a plain word", "write `name: value`, without anchors, tags or `?`")
            if not isinstance(event, ScalarEvent | AliasEvent):
                self.node(event, path, depth + 1)  # reads past it, noting what else is wrong inside
            return None
        if event.value == "<<" and event.implicit[0]:
            self.refuse(event, path, "a merge key (<<) is not allowed", "write the values out")
            return None
        return event.value


def join(path: str, key: str | int) -> str:
    """The dotted path of a child."""
    return f"{path}.{key}" if path else str(key)


def parse_yaml(text: str, *, label: str, base: Path, numbered: bool = True) -> tuple[Node | None, list[Problem]]:
    """Reads one YAML document; None when its structure can't be read. Problems stand at `label:line`, or at `label` if not `numbered`."""
    events = YAML(typ="safe", pure=True).parse(text)
    composer = _Composer(iter(events), label, base, numbered)
    root: Node | None = None
    try:
        for event in composer.events:
            if isinstance(event, DocumentStartEvent) and root is not None:
                composer.refuse(event, "", "a second document (`---`) starts here", "keep one document in the file")
                break
            if isinstance(event, NodeEvent):
                root = composer.node(event, "")
    except _Refused:
        root = None
    except MarkedYAMLError as error:
        composer.problems.append(_syntax_problem(error, text, composer))
        root = None
    except ReaderError as error:
        where = f"{label}:{text.count(chr(10), 0, error.position) + 1}" if numbered else label
        code = error.character if isinstance(error.character, int) else ord(error.character)
        composer.problems.append(
            Problem(where=where, path="", problem=f"is not YAML: character U+{code:04X} is not allowed", fix="remove it")
        )
        root = None
    return root, composer.problems


def _syntax_problem(error: MarkedYAMLError, text: str, composer: _Composer) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = mark.line if mark else 0
    rows = text.splitlines()
    row = rows[line] if line < len(rows) else ""
    column = f", column {mark.column + 1}" if mark else ""
    what = " ".join(filter(None, [error.context, error.problem])) or "can't be read"
    fix = "mend the syntax there or just above" if composer.numbered else "mend the value's syntax, or quote it"
    if "\t" in row[: len(row) - len(row.lstrip())]:
        fix = "indent with spaces, not tabs"
    elif "${" in row:
        fix = "inside [...] or {...}, quote ${...}, or write the value on a line of its own"
    where = f"{composer.label}:{line + 1}" if composer.numbered else composer.label
    return Problem(where=where, path="", problem=f"is not YAML: {what}{column if composer.numbered else ''}", fix=fix)


def read_recipe_text(path: Path) -> tuple[str | None, list[Problem]]:
    """The file's text (UTF-8 with or without a byte-order mark, or UTF-16 with one), or the one thing that prevents it."""

    def problem(what: str, fix: str) -> tuple[None, list[Problem]]:
        return None, [Problem(where=str(path), path="", problem=what, fix=fix)]

    if path.is_dir():
        inside = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
        return problem("is a folder", f"name a recipe file, e.g. {inside[0]}" if inside else "name a recipe file (.yaml)")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return problem("no such file", _near_files(path))
    except OSError as error:
        return problem(f"can't be read: {error.strerror}", "check the path and its permissions")
    if any(suffix in _DATA for suffix in path.suffixes):
        return problem("is a data file, not a recipe", f"write a recipe for it: foveate init {path}")
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        return problem(f"is not text: byte {error.start} is not {'UTF-16' if wide else 'UTF-8'}", "give a YAML file saved as UTF-8")
    if not text.strip():
        return problem("is empty", "a recipe needs at least `data: {train: [{path: my_data.jsonl}]}`")
    return text, []


_DATA = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".tar")


def _near_files(path: Path) -> str:
    folder = path.parent
    names = [entry.name for entry in folder.iterdir() if entry.suffix in {".yaml", ".yml"}] if folder.is_dir() else []
    near = nearest(path.name, names)
    return f"did you mean {folder / near}?" if near else "check the path"
