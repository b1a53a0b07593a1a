"""From a row of any format to a conversation. `find_adapter` chooses; `format: auto` says what it saw and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.config.data import SourceSection
from foveate.config.suggest import listed
from foveate.data.adapters.columns import MEDIA_ROLES, Columns, candidates, check_template, choose_columns, require
from foveate.data.adapters.function import FunctionAdapter
from foveate.data.adapters.messages import MessagesAdapter
from foveate.data.adapters.named import named_set
from foveate.data.adapters.sharegpt import ShareGptAdapter
from foveate.data.adapters.simple import PROMPTS, AsrAdapter, CaptionAdapter, QaAdapter
from foveate.errors import DataError
from foveate.types import Adapter, Row

if TYPE_CHECKING:
    from foveate.data.sources import Source

__all__ = ["find_adapter"]

# Format -> roles it needs, and roles it can use besides.
FORMATS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "messages": (("messages",), (*MEDIA_ROLES, "answers")),
    "sharegpt": (("messages",), (*MEDIA_ROLES, "answers", "system")),
    "qa": (("question", "answer"), (*MEDIA_ROLES, "answers", "system")),
    "caption": (("image", "caption"), ("video", "system")),
    "asr": (("audio", "transcription"), ("system",)),
}
_PEEK = 16  # records looked at to tell messages from sharegpt


def find_adapter(section: SourceSection, source: Source, *, function: Callable[[Row], Any] | None = None) -> tuple[str, Adapter]:
    """The format's description for the log, and the adapter, which is picklable unless `function` is not.

    `function` is the user's own adapter, already allowed. DataError when the format can't be told, or does not fit the columns.
    """
    root = Path(section.media_root) if section.media_root is not None else source.root
    where, columns = source.name, source.columns
    if section.adapter is not None:
        if function is None:
            raise DataError(
                f"adapter {section.adapter} was not loaded", reason="adapter_error", where=where, fix="allow it: `foveate allow`"
            )
        _refuse_unused(section, "adapter", ("columns", "prompt", "format"), where)
        return f"adapter {section.adapter}", FunctionAdapter(function=function, name=section.adapter, root=root)
    if section.prompt is not None:
        check_template(section.prompt, columns, where)
    if section.use is not None:
        _refuse_unused(section, f"use: {section.use}", ("columns", "format"), where)
        named, adapter = named_set(section.use).adapter(columns, root, section.prompt, where)
        return f"{section.use} ({named})", adapter
    chosen = choose_columns(section.columns, columns, root, where)
    form, why = (section.format, "as the recipe says") if section.format != "auto" else _detect(chosen, source)
    return f"{form} ({why})", _build(form, chosen, section, columns, where)


def _build(form: str, chosen: Columns, section: SourceSection, columns: Sequence[str], where: str) -> Adapter:
    needed, optional = FORMATS[form]
    roles = (*needed, *optional)
    for role in section.columns:
        if role not in roles:
            raise DataError(
                f"format {form} has no use for `columns: {role}`", reason="bad_section", where=where, fix="remove it, or change `format:`"
            )
    if form == "qa":
        needed = tuple(
            role for role in needed if not (role == "question" and section.prompt) and not (role == "answer" and "answers" in chosen.named)
        )
    if form == "caption" and "video" in chosen.named and "image" not in chosen.named:
        needed = ("video", "caption")
    require(chosen, needed, columns, form, where)
    for role in optional:  # an optional role that two columns could play must not be dropped in silence
        if role in MEDIA_ROLES and role not in chosen.named and candidates(role, columns):
            require(chosen, (role,), columns, form, where)
    used = Columns(
        named={role: column for role, column in chosen.named.items() if role in roles},
        root=chosen.root,
        late=tuple(role for role in optional if role not in chosen.named),
        seen=frozenset(columns),
    )
    if form in ("messages", "sharegpt"):
        if section.prompt is not None:
            raise DataError(f"format {form} has its own user turns", reason="bad_section", where=where, fix="remove `prompt:`")
        return MessagesAdapter(columns=used) if form == "messages" else ShareGptAdapter(columns=used)
    if form == "qa":
        return QaAdapter(columns=used, prompt=section.prompt)
    if form == "caption":
        return CaptionAdapter(columns=used, prompt=section.prompt or PROMPTS["caption" if "image" in used.named else "caption_video"])
    return AsrAdapter(columns=used, prompt=section.prompt or PROMPTS["asr"])


def _detect(chosen: Columns, source: Source) -> tuple[str, str]:
    """The one format that the columns fit, and why."""
    columns = source.columns

    def has(*roles: str) -> bool:
        return any(role in chosen.named or candidates(role, columns) for role in roles)

    def seen(*roles: str) -> str:
        return f"columns {chosen.described(roles) or listed(columns)}"

    fits = {}
    if "messages" in chosen.named and (form := _turns(source, chosen.named["messages"])):
        fits[form] = f"column {chosen.named['messages']} holds {'role/content' if form == 'messages' else 'from/value'} turns"
    if has("question") and has("answer", "answers"):
        fits["qa"] = seen("question", "answer", "answers", *MEDIA_ROLES)
    if has("image", "video") and has("caption") and not has("question", "messages"):
        fits["caption"] = seen("image", "video", "caption")
    if has("audio") and has("transcription") and not has("question", "messages"):
        fits["asr"] = seen("audio", "transcription")
    if len(fits) == 1:
        return next(iter(fits.items()))
    if fits:
        raise DataError(
            f"the format could be {' or '.join(f'{form} ({why})' for form, why in fits.items())}",
            reason="ambiguous_format", where=source.name, fix="choose one with `format:`",
        )  # fmt: skip
    if not columns:
        source[0]  # raises what is wrong with it, if that is why
    nested = _nested(source)
    raise DataError(
        f"the format can't be told from the columns {listed(columns) or '(none)'}" + nested, reason="unknown_format", where=source.name,
        fix="name the columns, e.g. `columns: {image: ..., question: ..., answer: ...}`, or give an `adapter:` function",
    )  # fmt: skip


def _turns(source: Source, column: str) -> str | None:
    """`messages` or `sharegpt`, by the first record that can be read and has turns."""
    for index in range(min(len(source), _PEEK)):
        try:
            turns = source[index].get(column)
        except DataError:  # said when the record is read for use
            continue
        if isinstance(turns, (list, tuple)) and turns and isinstance(turns[0], Mapping):
            return "sharegpt" if "from" in turns[0] else "messages" if "role" in turns[0] else None
    return None


def _nested(source: Source) -> str:
    """A hint where one single object holds the records in a list, as in `{"data": [...]}`."""
    if len(source) != 1:
        return ""
    lists = [key for key, value in source[0].items() if isinstance(value, list) and value and isinstance(value[0], Mapping)]
    return f"; its one record holds a list under {lists[0]!r}: if those are the records, save that list alone as the file" if lists else ""


def _refuse_unused(section: SourceSection, what: str, keys: Sequence[str], where: str) -> None:
    written = section.model_dump(exclude_defaults=True)
    for key in keys:
        if key in written:
            raise DataError(f"`{key}` has no effect beside `{what}`", reason="bad_section", where=where, fix=f"remove `{key}`")
