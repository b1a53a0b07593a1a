"""Paths that name several files: braces, spelled out in their order, and wildcards."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

from foveate.data.files import near_path
from foveate.errors import DataError

_MOST = 100_000  # files that a pattern may name
_RANGE = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")


def is_pattern(text: str) -> bool:
    """Whether a path is a pattern: has braces or wildcards, and is no file or folder itself."""
    return any(mark in text for mark in "{*?[") and not os.path.exists(text)


def expand(pattern: str) -> list[Path]:
    """The files that a pattern names: `{000..009}` and `{a,b}` in their order, then `*`, `?`, `[...]` and `**` sorted by name.

    DataError `source_missing` when it, or one file that its braces name, is not there.
    """
    if os.path.exists(pattern):
        return [Path(pattern)]
    names = spelled(pattern, pattern)
    found: list[Path] = []
    for name in names:
        wild = glob.has_magic(name) and not os.path.exists(name)
        files = [Path(match) for match in sorted(glob.glob(name, recursive=True)) if os.path.isfile(match)] if wild else [Path(name)]
        if not files or not files[0].exists():
            what = "no file matches it" if len(names) == 1 else f"{Path(name).name} is not there, one of {len(names)} that it names"
            raise DataError(what, reason="source_missing", where=pattern, fix=near_path(Path(name)) or "check the pattern")
        found += files
    if len(set(found)) < len(found):
        twice = Counter(found).most_common(1)[0][0]
        raise DataError(f"the pattern names {twice.name} twice", reason="source_missing", where=pattern, fix="name each file once")
    return found


def spelled(pattern: str, where: str) -> list[str]:
    """All names that the pattern's braces stand for. DataError `source_missing` for more than 100,000; `where` says where it is written."""
    names = list(islice(_braces(pattern), _MOST + 1))
    if len(names) > _MOST:
        raise DataError(f"the pattern {pattern} names more than {_MOST:,} files", reason="source_missing", where=where, fix="narrow it")
    return names


def _braces(pattern: str) -> Iterator[str]:
    """`a{00..02}` -> a00, a01, a02 and `{x,y}` -> x, y, the ones inside others too; braces with neither are plain text."""
    for start, end, cuts in _groups(pattern):
        bounds = [start, *cuts, end]
        options = (pattern[low + 1 : high] for low, high in pairwise(bounds)) if cuts else _range(pattern[start + 1 : end])
        if options is not None:
            for option in options:
                yield from _braces(pattern[:start] + option + pattern[end + 1 :])
            return
    yield pattern


def _groups(pattern: str) -> list[tuple[int, int, list[int]]]:
    """(opening, closing, commas of its own) of every pair of braces, outer ones first."""
    found, open_ones = [], []
    for at, mark in enumerate(pattern):
        if mark == "{":
            open_ones.append((at, []))
        elif mark == "," and open_ones:
            open_ones[-1][1].append(at)
        elif mark == "}" and open_ones:
            start, cuts = open_ones.pop()
            found.append((start, at, cuts))
    return sorted(found)


def _range(text: str) -> Iterator[str] | None:
    span = _RANGE.fullmatch(text)
    if span is None:
        return None
    first, last, step = int(span[1]), int(span[2]), int(span[3] or 1) or 1
    padded = any(len(bound) > 1 and bound[0] == "0" for bound in span.groups()[:2])
    width = max(len(span[1]), len(span[2])) if padded else 0
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    return (f"{number:0{width}d}" for number in numbers)
