"""Writes docs/recipe.md from the recipe's own types and the command line's own options.

python docs/make_reference.py            # write it
python docs/make_reference.py --check    # exit with 1 if the committed page is not what this script makes
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from generated import write_or_compare
from pydantic.fields import FieldInfo

from foveate.cli.main import COMMANDS
from foveate.config.base import Section
from foveate.config.data import SourceSection
from foveate.config.fields import field_path_kind, members
from foveate.config.model import QuantizeSection
from foveate.config.optim import PartOptimSection
from foveate.config.recipe import Recipe

PAGE = Path(__file__).with_name("recipe.md")
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_SIMPLE = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
_PATHS = {"file": "path", "maybe": "text or path", "code": "function"}
# Sections that stand in lists and mappings: where, and what they are.
_PLACES = {
    SourceSection: (
        "data.train.0",
        "One source of records, the first of `data.train`. It is named by `path`, `hub` or `use`; `use` may also stand beside one of the "
        "other two, for records of that set's schema kept elsewhere. See [data.md](data.md).",
    ),
    QuantizeSection: (
        "model.quantize",
        "Frozen linear layers in 4 or 8 bits, under adapters that are trained in full precision. See [howto.md](howto.md).",
    ),
    PartOptimSection: ("optim.per_part.<part>", "Settings of one part that differ from the rest."),
}

INTRO = """\
# The recipe

<!-- Written by docs/make_reference.py from the types in src/foveate/config. Change those, then run the script. -->

A recipe is one YAML file. Only `data` is required; everything else has the default given here. `foveate check RECIPE` says what is
wrong with one, all mistakes at once, each with its line.

## How a recipe is read

- **YAML 1.2.** `1e-5` is a number, `no` is text, `true` and `false` are the only booleans. Types are strict: `"3"` is not a number.
  Unknown keys, keys that stand twice, anchors, aliases, tags and merge keys are errors.
- **Overrides** on the command line, `section.key=value`, come on top, the last one wins: `optim.lr=2e-5`,
  `data.train.0.path=more.jsonl` (list items by number), `evaluate.metrics='[loss, wer]'`. Values are YAML.
- **Paths** in the recipe are relative to the recipe's folder, in an override to the current folder. `~` is the home folder.
- **Variables.** `${NAME}` is the environment variable; `${NAME:default}` has a default; `$${` is a plain `${`. An unquoted value that
  is one variable takes the type of its text, anything else stays text. An unset variable without a default is an error.
- **The effective recipe**, defaults and overrides included, is written to the run's folder as `recipe.yaml`.

For completion and checks in an editor: `foveate schema > recipe.schema.json`, and at the top of the recipe
`# yaml-language-server: $schema=recipe.schema.json`.

*unset* below means that the key is absent by default. A part is one of `vision`, `projector`, `language`, `embeddings`, `head`.
"""

EXIT_CODES = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | `doctor`: training can't work here. Otherwise a bug of Foveate's, with its traceback, or a process of `--nproc` that died |
| 2 | an error of the input or the surroundings: recipe, data, model, template, checkpoint, option. The message names place and fix. \
`check`: something is wrong. `preview`: no record could be shown |
| 130 | interrupted (Ctrl-C) |
| 128 + n | `train`: stopped by signal n after a checkpoint: 130 SIGINT, 143 SIGTERM, 138 SIGUSR1. `--resume` goes on |
"""


def page() -> str:
    """The whole page."""
    blocks = [INTRO]
    for name, field in Recipe.model_fields.items():
        section = _section_of(field.annotation)
        if section is None:
            blocks.append(f"## `{name}`\n\n{_table([(name, field)])}")
            continue
        blocks.append(f"## `{name}`\n\n{inspect.cleandoc(section.__doc__ or '')}\n\n{_table(section.model_fields.items())}")
        for inner in dict.fromkeys(found for item in section.model_fields.values() if (found := _section_of(item.annotation, nested=True))):
            place, about = _PLACES[inner]
            blocks.append(f"### `{place}`\n\n{about}\n\n{_table(inner.model_fields.items())}")
    blocks.append(_commands())
    blocks.append(EXIT_CODES)
    return "\n".join(blocks)


def _table(fields: Any) -> str:
    rows = ["| key | type | default | |", "|---|---|---|---|"]
    rows += [f"| `{name}` | {_type(field)} | {_default(field)} | {_cell(field.description or '')} |" for name, field in fields]
    return "\n".join(rows) + "\n"


def _type(field: FieldInfo) -> str:
    kind = field_path_kind(field)
    words = [_PATHS[kind]] if kind else [_word(member) for member in members(field.annotation) if member is not type(None)]
    if type(None) in members(field.annotation) and field.get_default(call_default_factory=True, validated_data={}) is not None:
        words.append("`null`")
    return _cell(" or ".join([*words[:-2], ", ".join(words[-2:])] if len(words) > 2 else words) + "".join(_bounds(field)))


def _bounds(field: FieldInfo) -> Iterator[str]:
    for bound in field.metadata:
        for name, value in asdict(bound).items() if is_dataclass(bound) else ():
            if name in _BOUNDS:
                yield f", {_BOUNDS[name]} {value:g}"


def _word(kind: Any) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if origin is Literal:
        values = [f"`{value}`" for value in inside]
        return " or ".join(filter(None, [", ".join(values[:-1]), values[-1]]))
    if origin is tuple:
        return f"list of {len(inside)} {_word(inside[0])}s"
    if origin is list:
        return "list of " + _items(inside[0])
    if origin is dict:
        return f"mapping: {_items(inside[0], one=True)} → {'any value' if inside[1] is Any else _items(inside[1], one=True)}"
    return "section"


def _items(kind: Any, *, one: bool = False) -> str:
    if get_origin(kind) is Literal and "projector" in get_args(kind):
        return "part" if one else "parts"
    if _section_of(kind):
        return f"[section](#{_anchor(_PLACES[kind][0])})" if one else f"[sources](#{_anchor(_PLACES[kind][0])})"
    return _word(kind)


def _anchor(place: str) -> str:
    return "".join(char for char in place.lower() if char.isalnum() or char in "-_")


def _section_of(annotation: Any, *, nested: bool = False) -> type[Section] | None:
    for member in members(annotation):
        inner = get_args(member)[-1] if nested and get_origin(member) in (list, dict) else member
        if isinstance(inner, type) and issubclass(inner, Section):
            return inner
    return None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "*unset*"
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    """Safe inside a table: no bar ends the cell, and `<name>` outside of code is no HTML."""
    pieces = text.replace("|", "\\|").replace("\n", " ").split("`")
    return "`".join(piece if number % 2 else piece.replace("<", "&lt;") for number, piece in enumerate(pieces))


def _commands() -> str:
    blocks = ["## Commands\n\n`OVERRIDES` are `section.key=value`. `foveate COMMAND --help` says the same.\n"]
    for name, (module, _) in COMMANDS.items():
        command = importlib.import_module(module).command
        usage = " ".join(["foveate", name, *_arguments(command)])
        rows = [
            f"| `{_option(item)}` | {_cell(item.help or '')}{_shown_default(item)} |"
            for item in command.params
            if isinstance(item, click.Option)
        ]
        table = "\n".join(["| option | |", "|---|---|", *rows]) + "\n" if rows else ""
        blocks.append("\n".join(filter(None, [f"### `{usage}`\n", _help(command), table])))
    return "\n".join(blocks)


def _help(command: click.Command) -> str:
    lines = [line.strip() for line in (command.help or "").splitlines()]
    return "\n".join(lines).strip() + "\n"


def _arguments(command: click.Command) -> Iterator[str]:
    for item in command.params:
        if isinstance(item, click.Argument):
            yield "[OVERRIDES]" if item.name == "overrides" else item.metavar or item.name.upper()


def _option(option: click.Option) -> str:
    """The option and what it takes: `--output PATH`, `--to parquet\\|webdataset` (a bar alone would end the table's cell)."""
    if option.is_flag:
        return option.opts[0]
    match option.type:
        case click.IntRange():
            takes = "N"
        case click.Path():
            takes = "PATH"
        case click.Choice(choices=choices):
            takes = "\\|".join(choices)
        case _:
            takes = option.metavar or "TEXT"
    return f"{option.opts[0]} {takes}"


def _shown_default(option: click.Option) -> str:
    return f" Default: {option.default}." if isinstance(option.default, int) and not option.is_flag else ""


if __name__ == "__main__":
    sys.exit(write_or_compare(PAGE, page(), "make_reference.py", sys.argv[1:]))
