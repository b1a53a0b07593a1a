"""From a row of any format to a conversation. `find_adapter` chooses; `format: auto` says what it saw and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.config.data import SourceSection
from foveate.config.media import MediaSection
from foveate.data.adapters.columns import check_template, choose_columns
from foveate.data.adapters.detect import detect
from foveate.data.adapters.formats import FORMATS, build_adapter, used_columns
from foveate.data.adapters.function import FunctionAdapter
from foveate.data.adapters.named import named_set
from foveate.data.adapters.peek import Peek
from foveate.data.adapters.refuse import check_supervised
from foveate.data.adapters.turns import check_tags
from foveate.data.adapters.unused import unused_columns
from foveate.data.media.place import Settler
from foveate.errors import DataError
from foveate.types import Adapter, Row

if TYPE_CHECKING:
    from foveate.data.sources.source import Source

__all__ = ["FORMATS", "find_adapter"]

_RULES = MediaSection()
_ANYWHERE = Settler()
_ALONE = ("columns", "format", "tags", "boxes", "boxes_in", "labels")  # keys that say how columns are read


def find_adapter(
    section: SourceSection,
    source: Source,
    *,
    function: Callable[[Row], Any] | None = None,
    rules: MediaSection = _RULES,
    settler: Settler = _ANYWHERE,
) -> tuple[str, Adapter]:
    """The format's description for the log, and the adapter, which is picklable unless `function` is not.

    `function` is the user's own adapter, already allowed; `rules` and `settler` are those of the images whose boxes are written.
    DataError when the format can't be told, or does not fit the columns.
    """
    root = Path(section.media_root) if section.media_root is not None else source.root
    where, columns = source.name, source.columns
    if section.adapter is not None:
        if function is None:
            raise DataError(
                f"adapter {section.adapter} was not loaded", reason="adapter_error", where=where, fix="allow it: `foveate allow`"
            )
        _refuse_unused(section, "adapter", ("prompt", *_ALONE), where)
        return f"adapter {section.adapter}", FunctionAdapter(function=function, name=section.adapter, root=root)
    if section.prompt is not None:
        check_template(section.prompt, columns, where)
    if section.use is not None:
        _refuse_unused(section, f"use: {section.use}", _ALONE, where)
        named, adapter = named_set(section.use).adapter(columns, root, section.prompt, where)
        return f"{section.use} ({named})", adapter
    check_tags(section.tags, where)
    chosen = choose_columns(section.columns, columns, root, where)
    peek = Peek(source)
    check_supervised(section, columns, peek, where)
    form, why = (section.format, "as the recipe says") if section.format != "auto" else detect(section, chosen, source, peek)
    adapter, more = build_adapter(form, chosen, section, source, peek, rules, settler)
    left = unused_columns(columns, used_columns(form, chosen, section, columns), peek)
    return f"{form} ({why}{more}{left})", adapter


def _refuse_unused(section: SourceSection, what: str, keys: Sequence[str], where: str) -> None:
    written = section.model_dump(exclude_defaults=True)
    for key in keys:
        if key in written:
            raise DataError(f"`{key}` has no effect beside `{what}`", reason="bad_section", where=where, fix=f"remove `{key}`")
