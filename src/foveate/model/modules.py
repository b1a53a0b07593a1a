"""The table of what is trained: modules by the pattern of their names, on a screen however large the model is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from foveate.config.tuning import TuningSection
from foveate.events import ModuleRow
from foveate.model.parts import bare_name, live_parameters, part_of, size_of

MOST_ROWS = 20


@dataclass(slots=True, kw_only=True)
class _Module:
    """One module that has tensors of its own."""

    part: str
    parameters: int = 0
    trained: int = 0
    ways: set[str] = field(default_factory=set)


def module_table(model: nn.Module, rates: Mapping[str, float], section: TuningSection, *, most: int = MOST_ROWS) -> list[ModuleRow]:
    """At most `most` lines, in the order of the model. What is frozen is shown by its largest modules, what is trained layer by layer.

    `rates` are the peak learning rates of the parts.
    """
    rows: dict[tuple[str, ...], ModuleRow] = {}
    for name, module in _modules(model, section).items():
        how = " + ".join(sorted(module.ways)) or "frozen"
        row = ModuleRow(
            pattern=re.sub(r"(?<![^.])\d+(?![^.])", "*", name),
            part=module.part,
            modules=1,
            parameters=module.parameters,
            trained=module.trained,
            how=how,
            lr=rates.get(module.part) if module.trained else None,
        )
        key = (row.pattern, row.part, how)
        rows[key] = _sum([rows[key], row]) if key in rows else row
    return _shortened(_siblings(_folded(list(rows.values()))), most)


def _modules(model: nn.Module, section: TuningSection) -> dict[str, _Module]:
    """By their names in the plain model."""
    parts, found = part_of(model), {}
    for name, parameter in live_parameters(model):
        module = found.setdefault(bare_name(name).rpartition(".")[0], _Module(part=parts[name]))
        size = size_of(parameter)
        module.parameters += size
        if parameter.requires_grad:
            module.trained += size
            module.ways.add(_way(name, parameter, section))
    return found


def _way(name: str, parameter: nn.Parameter, section: TuningSection) -> str:
    if "trainable_tokens_delta" in name:
        return f"{parameter.shape[0]} new rows"
    return f"{'DoRA ' if section.dora else ''}adapter r={section.rank}" if ".lora_" in name else "full"


def _sum(rows: list[ModuleRow], pattern: str | None = None) -> ModuleRow:
    """Rows of one part and way as one."""
    return replace(
        rows[0],
        pattern=rows[0].pattern if pattern is None else pattern,
        modules=sum(row.modules for row in rows),
        parameters=sum(row.parameters for row in rows),
        trained=sum(row.trained for row in rows),
    )


def _folded(rows: list[ModuleRow]) -> list[ModuleRow]:
    """Frozen rows below the shortest name under which everything is frozen and of one part."""
    kinds: dict[str, set[tuple[str, bool]]] = {}
    for row in rows:
        for prefix in _prefixes(row.pattern):
            kinds.setdefault(prefix, set()).add((row.part, row.trained > 0))
    groups: dict[str, list[ModuleRow]] = {}
    for index, row in enumerate(rows):
        owner = next((prefix for prefix in _prefixes(row.pattern) if len(kinds[prefix]) == 1), row.pattern)
        groups.setdefault(f"{index}" if row.trained or not owner else owner, []).append(row)
    return [_sum(found, found[0].pattern if owner.isdigit() else owner) for owner, found in groups.items()]


def _prefixes(pattern: str) -> list[str]:
    words = pattern.split(".")
    return [".".join(words[:end]) for end in range(1, len(words) + 1)]


def _siblings(rows: list[ModuleRow]) -> list[ModuleRow]:
    """Rows that differ in the last word of their names alone, as one: `self_attn.{k,q,v}_proj`."""
    groups: dict[tuple, list[ModuleRow]] = {}
    for row in rows:
        parent, _, _ = row.pattern.rpartition(".")
        groups.setdefault((parent, row.part, row.how, row.lr), []).append(row)
    return [_sum(found, _braced(parent, [row.pattern for row in found])) for (parent, *_), found in groups.items()]


def _braced(parent: str, patterns: list[str]) -> str:
    leaves = [pattern.rpartition(".")[2] for pattern in patterns]
    if len(leaves) == 1:
        return patterns[0]
    tail = os.path.commonprefix([leaf[::-1] for leaf in leaves])[::-1]
    tail = tail[tail.index("_") :] if "_" in tail else ""
    if any(leaf == tail for leaf in leaves):
        tail = ""
    inner = ",".join(leaf[: len(leaf) - len(tail)] for leaf in leaves)
    return f"{parent}.{{{inner}}}{tail}".removeprefix(".")


def _shortened(rows: list[ModuleRow], most: int) -> list[ModuleRow]:
    """The trained rows first to stay, then the largest; the rest is one line."""
    if len(rows) <= most:
        return rows
    ranked = sorted(rows, key=lambda row: (row.trained > 0, row.parameters), reverse=True)
    kept, rest = ranked[: most - 1], ranked[most - 1 :]
    how = "frozen" if not any(row.trained for row in rest) else "trained and frozen"
    more = replace(_sum(rest, f"{len(rest)} more names"), part="", how=how, lr=None)
    return [*(row for row in rows if row in kept), more]
