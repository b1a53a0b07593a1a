"""Which column plays which role: as mapped in the recipe, else by its usual names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.config.roles import ROLES
from foveate.config.suggest import listed, nearest
from foveate.data.adapters.parts import media_list
from foveate.data.adapters.tags import plural
from foveate.errors import DataError
from foveate.types import MediaKind, Part, Row

MEDIA_ROLES: tuple[MediaKind, ...] = ("image", "audio", "video")
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Role -> column, for the roles that the data has. `root` is the folder of relative media paths.

    The columns of JSON lines are those of the first records. A later record may have one more, which must not be dropped in silence:
    `late` are the roles that it may play, `seen` the columns of the first records.
    """

    named: Mapping[str, str]
    root: Path | None
    late: tuple[str, ...] = ()
    seen: frozenset[str] = frozenset()
    usual: frozenset[str] = frozenset()  # roles whose column was found by its name, not given in the recipe

    def get(self, row: Row, role: str) -> Any:
        """The row's value in a role; None when the role has no column, or the row no value."""
        column = self._column(row, role)
        return row.get(column) if column is not None else None

    def _column(self, row: Row, role: str) -> str | None:
        if role in self.named or role not in self.late:
            return self.named.get(role)
        found = candidates(role, [key for key in row if key not in self.seen])
        if len(found) > 1:
            fix = f"choose with `columns: {{{role}: {found[0]}}}`"
            raise DataError(f"the {role} could be any of {listed(found)}", reason="ambiguous_format", fix=fix)
        return found[0] if found else None

    def need(self, row: Row, role: str) -> Any:
        """The same; DataError `missing_field` when there is none."""
        value = self.get(row, role)
        if value is None:
            column = self.named.get(role, role)
            if column in row:
                raise DataError(f"{column!r} has no value in this record", reason="missing_field", fix="fill it in, or remove the record")
            near = nearest(column, [key for key in row if key != column])
            raise DataError(
                f"no {column!r} in this record (it has {listed(row) or 'none'})" + (f"; did you mean {near!r}?" if near else ""),
                reason="missing_field", fix=f"add {column!r}, or map its column with `columns: {{{role}: ...}}`",
            )  # fmt: skip
        return value

    def media(self, row: Row) -> dict[MediaKind, list[Part]]:
        """The media of the row's own columns, by kind; kinds without a column are left out."""
        found: dict[MediaKind, list[Part]] = {}
        for kind in MEDIA_ROLES:
            column = self._column(row, kind)
            if column is not None:
                found[kind] = media_list(kind, row.get(column), self.root)
                if not found[kind] and kind in self.usual:
                    self._refuse_other(row, kind, column)
        return found

    def _refuse_other(self, row: Row, kind: MediaKind, column: str) -> None:
        """DataError when the medium that the row lacks may stand in another column, as where `image` and `images` are mixed."""
        for other, value in row.items():
            if other not in self.named.values() and other.lower() in ROLES[kind] and not (value is None or value == "" or value == []):
                raise DataError(
                    f"{column!r} holds no {kind}, but {other!r} does", reason="ambiguous_format",
                    fix=f"write all {plural(kind)} into one column, or choose with `columns: {{{kind}: {column}}}`",
                )  # fmt: skip

    def described(self, roles: Iterable[str]) -> str:
        """`question, answer and image` as the columns are called, for the log."""
        return ", ".join(self.named[role] for role in roles if role in self.named)


def choose_columns(mapped: Mapping[str, str], columns: Sequence[str], root: Path | None, where: str) -> Columns:
    """Every role's column. DataError for an unknown role or column, or when two columns could play a role that one must.

    A role that several columns could play is left open here and reported by `require` when a format needs it.
    """
    for role, column in mapped.items():
        if role not in ROLES:
            near = nearest(role, ROLES)
            raise DataError(
                f"`columns` has no role {role!r}" + (f"; did you mean {near!r}?" if near else ""),
                reason="unknown_role", where=where, fix=f"roles are {', '.join(ROLES)}",
            )  # fmt: skip
        missing = [name for name in (column_list(column) if role == "choices" else (column,)) if name not in columns]
        if column not in columns and missing:
            column = missing[0]
            near = nearest(column, columns)
            raise DataError(
                f"`columns: {role}` names {column!r}, which is no column" + (f"; did you mean {near!r}?" if near else ""),
                reason="unknown_column", where=where, fix=f"columns are {listed(columns)}",
            )  # fmt: skip
    named, free = dict(mapped), [column for column in columns if column not in mapped.values()]
    for role in ROLES:
        found = candidates(role, free)
        if role not in named and len(found) == 1:
            named[role] = found[0]
    return Columns(named=named, root=root)


def column_list(text: str) -> tuple[str, ...]:
    """`a, b` as names: the choices of a question may lie in a column each."""
    return tuple(name.strip() for name in text.split(","))


def candidates(role: str, columns: Sequence[str]) -> list[str]:
    """Columns whose name is a usual one for the role; an exact match wins over the others."""
    found = [column for column in columns if column.lower() in ROLES[role]]
    exact = [column for column in found if column.lower() == role]
    return exact[:1] or found


def require(chosen: Columns, roles: Sequence[str], columns: Sequence[str], form: str, where: str) -> None:
    """DataError when a format's role has no column, or could be played by several."""
    for role in roles:
        if role in chosen.named:
            continue
        found = candidates(role, columns)
        taken = {column: other for other, column in chosen.named.items()}
        if len(found) == 1 and found[0] in taken:
            raise DataError(
                f"format {form} needs a column for {role}, but {found[0]!r} is the {taken[found[0]]}", reason="missing_field", where=where,
                fix=f"name another one: `columns: {{{role}: <column>}}`",
            )  # fmt: skip
        if found:
            raise DataError(
                f"format {form}: the {role} could be any of {listed(found)}", reason="ambiguous_format", where=where,
                fix=f"choose with `columns: {{{role}: {found[0]}}}`",
            )  # fmt: skip
        near = nearest(role, columns)
        raise DataError(
            f"format {form} needs a column for {role}, and there is none among {listed(columns)}",
            reason="missing_field", where=where, fix=f"map it: `columns: {{{role}: {near or '<column>'}}}`",
        )  # fmt: skip


def fill(template: str, row: Row) -> str:
    """The template with every `{column}` replaced by the row's value; `{{` and `}}` stand for braces."""

    def put(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        value = row.get(match[1])
        if value is None:
            raise DataError(
                f"`prompt` needs {match[1]!r}, which this record lacks", reason="missing_field", fix="add it or change `prompt`"
            )
        return str(value)

    return _FIELD.sub(put, template)


def template_columns(template: str) -> list[str]:
    """The columns that a template names."""
    return [match[1] for match in _FIELD.finditer(template) if match[1] is not None]


def check_template(template: str, columns: Sequence[str], where: str) -> None:
    """DataError when a `{name}` in the template is no column."""
    for name in template_columns(template):
        if name not in columns:
            near = nearest(name, columns)
            raise DataError(
                f"`prompt` uses {{{name}}}, which is no column" + (f"; did you mean {{{near}}}?" if near else ""),
                reason="unknown_column", where=where, fix=f"columns are {listed(columns)}; write {{{{ and }}}} for braces",
            )  # fmt: skip


def check_fields(item: Mapping[str, Any], known: Collection[str], *, what: str, reason: str, fix: str | None = None) -> None:
    """Raises DataError for a field of `item` that is not among `known`, with the nearest one that is; `fix` lists them by default."""
    for key in item:
        if key not in known:
            near = nearest(str(key), known)
            problem = f"{what}unknown field {key!r}" + (f"; did you mean {near!r}?" if near else "")
            raise DataError(problem, reason=reason, fix=fix or f"it may have {listed(sorted(known))}")
