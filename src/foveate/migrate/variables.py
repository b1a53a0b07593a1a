"""Variables in foreign recipes: the value that the trainer would see, and how a Foveate recipe writes the same variable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from foveate.config.tree import Node, Scalar, core_scalar, join
from foveate.errors import Problem

_BARE = re.compile(r"\$(?=[A-Za-z_])((?:\w|\.(?=\w))+)")
_BRACED = re.compile(r"\$\{\s*(?P<env>oc\.env:)?\s*(?P<name>[A-Za-z_][\w.]*)\s*(?:,(?P<default>[^}]*))?\}")


@dataclass(slots=True, kw_only=True)
class Expansion:
    """What was found. `kept` maps a key to its text as Foveate writes it, `unset` are the keys whose variable has no value here."""

    env: Mapping[str, str]
    siblings: Mapping[str, Scalar] | None  # LLaMA-Factory: `${key}` is another key of the file
    kept: dict[str, str] = field(default_factory=dict)
    unset: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def expand(self, node: Node, key: str = "") -> None:
        """Puts values in the place of variables, in every text below `node`.

        `${VAR}`, `${VAR,default}`, `${oc.env:VAR}` and, in Automodel, `$VAR` are environment variables.
        """
        for path, child in _texts(node, key):
            self._expand_one(child, path)

    def _expand_one(self, node: Node, key: str) -> None:
        text = str(node.value)
        if self.siblings is None:
            text = _BARE.sub(r"${\1}", text)
        if "${" not in text:
            return
        if "${" in _BRACED.sub("", text):
            problem = f"{text!r} holds a variable that can't be read"
            self.problems.append(Problem(where=node.where, path=key, problem=problem, fix="write its value out"))
            return
        whole = _BRACED.fullmatch(text)
        values = [self._value(match) for match in _BRACED.finditer(text)]
        self.kept[key] = _BRACED.sub(self._ours, text)
        if None in values:
            self.unset.add(key)
            return
        found = iter(values)
        resolved = _BRACED.sub(lambda _: next(found) or "", text)
        node.value = core_scalar(resolved) if whole and not node.quoted else resolved

    def _value(self, match: re.Match[str]) -> str | None:
        name, default = match["name"], match["default"]
        if self._shared(match):
            assert self.siblings is not None
            return str(self.siblings[name])
        return self.env.get(name, None if default is None else default.strip())

    def _ours(self, match: re.Match[str]) -> str:
        if self._shared(match):
            return self._value(match) or ""
        default = match["default"]
        return f"${{{match['name']}}}" if default is None else f"${{{match['name']}:{default.strip()}}}"

    def _shared(self, match: re.Match[str]) -> bool:
        return self.siblings is not None and not match["env"] and self.siblings.get(match["name"]) is not None


def _texts(node: Node, key: str) -> Iterator[tuple[str, Node]]:
    if isinstance(node.value, dict):
        for name, child in node.value.items():
            yield from _texts(child, join(key, name))
    elif isinstance(node.value, list):
        for number, child in enumerate(node.value):
            yield from _texts(child, join(key, number))
    elif isinstance(node.value, str) and "$" in node.value:
        yield key, node
