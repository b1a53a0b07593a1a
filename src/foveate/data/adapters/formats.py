"""The formats: which columns each needs and can use, and its adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foveate.config.data import SourceSection
from foveate.config.media import MediaSection
from foveate.data.adapters import choice, detection, ocr
from foveate.data.adapters.calls import WithTools
from foveate.data.adapters.columns import MEDIA_ROLES, Columns, candidates, column_list, require, template_columns
from foveate.data.adapters.messages import MessagesAdapter
from foveate.data.adapters.objects import NAME_KEYS, Objects, corners_by_area, objects_of, unknown_corners
from foveate.data.adapters.peek import Peek
from foveate.data.adapters.refuse import refusing
from foveate.data.adapters.sharegpt import ShareGptAdapter
from foveate.data.adapters.simple import PROMPTS, AsrAdapter, CaptionAdapter, QaAdapter
from foveate.data.adapters.turns import MESSAGES, SHAREGPT
from foveate.data.boxes import BoxCorners, BoxWriter
from foveate.data.classes import class_names, fills_nulls
from foveate.data.media.place import Settler
from foveate.errors import DataError
from foveate.types import Adapter

if TYPE_CHECKING:
    from foveate.data.sources.source import Source

_SIZE = ("width", "height")
_BOXES = ("objects", "bbox", *_SIZE)
# Format -> roles it needs, and roles it can use besides.
FORMATS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "messages": (("messages",), (*MEDIA_ROLES, "answers", "system", "tools", *_BOXES)),
    "sharegpt": (("messages",), (*MEDIA_ROLES, "answers", "system", "tools", *_BOXES)),
    "alpaca": (("question", "answer"), ("input", "history", *MEDIA_ROLES, "system", "tools", *_BOXES)),
    "qa": (("question", "answer"), (*MEDIA_ROLES, "answers", "history", "system", "tools", *_BOXES)),
    "multiple_choice": (("question", "choices", "answer"), (*MEDIA_ROLES, "hint", "system")),
    "caption": (("image", "caption"), ("video", "system")),
    "ocr": (("image", "ground_truth"), ("system",)),
    "asr": (("audio", "transcription"), ("system",)),
    "detection": (("image", "objects"), ("bbox", "category", *_SIZE, "system")),
}
_TURNS = ("messages", "sharegpt")
_TALK = (*_TURNS, "alpaca", "qa")  # formats whose texts may have placeholders for boxes


def build_adapter(
    form: str, chosen: Columns, section: SourceSection, source: Source, peek: Peek, rules: MediaSection, settler: Settler
) -> tuple[Adapter, str]:
    """The format's adapter, and what the log must say of it besides. DataError when format, columns and recipe do not fit."""
    columns, where = source.columns, source.name
    needed = _needed(form, chosen, section, columns)
    roles = (*FORMATS[form][0], *FORMATS[form][1])
    _check_keys(form, roles, section, where)
    require(chosen, needed, columns, form, where)
    for role in FORMATS[form][1]:  # an optional role that two columns could play must not be dropped in silence
        if role in MEDIA_ROLES and role not in chosen.named and candidates(role, columns):
            require(chosen, (role,), columns, form, where)
    used = Columns(
        named={role: column for role, column in chosen.named.items() if role in roles},
        root=chosen.root,
        late=tuple(role for role in FORMATS[form][1] if role not in chosen.named),
        seen=frozenset(columns),
        usual=frozenset(roles) - section.columns.keys(),
    )
    if form == "detection":
        return _detection(used, section, source, peek, rules, settler)
    if form == "ocr":
        return ocr.OcrAdapter(columns=used, prompt=section.prompt or ocr.PROMPT, filled=fills_nulls(source)), ""
    adapter = _plain(form, used, section, columns)
    if form not in _TALK:
        return adapter, ""
    grounded = _grounded(adapter, used, section, source, rules, settler)
    return refusing(WithTools(adapter=grounded, columns=used), section, columns), ""


def used_columns(form: str, chosen: Columns, section: SourceSection, columns: Sequence[str]) -> set[str]:
    """The columns that the format, the recipe's `columns:` and `prompt:`, or a refusal looks at."""
    roles = (*FORMATS[form][0], *FORMATS[form][1])
    used = {column for role, column in chosen.named.items() if role in roles}
    used |= {name for column in section.columns.values() for name in (column, *column_list(column))}
    used |= set(template_columns(section.prompt or ""))
    return used | set(_choice_columns(section, columns)) if form == "multiple_choice" else used


def _plain(form: str, used: Columns, section: SourceSection, columns: Sequence[str]) -> Adapter:
    """The adapters that read no image."""
    prompt = section.prompt
    if form == "messages":
        return MessagesAdapter(columns=used, names=MESSAGES.with_tags(section.tags))
    if form == "sharegpt":
        return ShareGptAdapter(columns=used, names=SHAREGPT.with_tags(section.tags))
    if form in ("qa", "alpaca"):
        return QaAdapter(columns=used, prompt=prompt)
    if form == "multiple_choice":
        lettered = () if used.named.get("choices") in columns else _choice_columns(section, columns)
        return choice.ChoiceAdapter(columns=used, prompt=prompt or choice.PROMPT, lettered=lettered)
    if form == "caption":
        return CaptionAdapter(columns=used, prompt=prompt or PROMPTS["caption" if "image" in used.named else "caption_video"])
    return AsrAdapter(columns=used, prompt=prompt or PROMPTS["asr"])


def _choice_columns(section: SourceSection, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns with one choice each: those that `columns: {choices: "first, second"}` names, else A, B, ... or option_a, ..."""
    if "choices" in section.columns:
        return column_list(section.columns["choices"])
    return choice.lettered_columns([column for column in columns if column not in section.columns.values()])


def _needed(form: str, chosen: Columns, section: SourceSection, columns: Sequence[str]) -> tuple[str, ...]:
    """The roles that must have a column, in this recipe and with these columns."""
    needed = FORMATS[form][0]
    spare = set()
    if form in ("qa", "alpaca"):
        spare |= {"question"} if section.prompt else set()
        spare |= {"answer"} if "answers" in chosen.named else set()
    if form == "multiple_choice" and _choice_columns(section, columns):
        spare.add("choices")
    if form == "caption" and "video" in chosen.named and "image" not in chosen.named:
        return ("video", "caption")
    if form == "detection" and "objects" not in chosen.named and "bbox" in chosen.named:
        return ("image", "bbox", "category")
    return tuple(role for role in needed if role not in spare)


def _check_keys(form: str, roles: Sequence[str], section: SourceSection, where: str) -> None:
    """DataError `bad_section` for what the recipe says and this format has no use for."""
    for role in section.columns:
        if role not in roles:
            raise DataError(
                f"format {form} has no use for `columns: {role}`", reason="bad_section", where=where, fix="remove it, or change `format:`"
            )
    if section.prompt is not None and form in (*_TURNS, "alpaca"):
        fix = "remove `prompt:`" + (", or write `format: qa`" if form == "alpaca" else "")
        raise DataError(f"format {form} has its own user turns", reason="bad_section", where=where, fix=fix)
    if section.tags and form not in _TURNS:
        raise DataError(f"format {form} has no turns that `tags` could name", reason="bad_section", where=where, fix="remove `tags:`")
    for key, written in (("boxes", section.boxes != "norm1000"), ("boxes_in", section.boxes_in), ("labels", section.labels)):
        if written and form != "detection" and form not in _TALK:
            raise DataError(f"format {form} has no boxes", reason="bad_section", where=where, fix=f"remove `{key}:`")


def _grounded(adapter: Adapter, used: Columns, section: SourceSection, source: Source, rules: MediaSection, settler: Settler) -> Adapter:
    strict = bool({"objects", "bbox"} & set(section.columns))
    names = tuple(section.labels) or _class_names(used, source)
    return detection.GroundedAdapter(
        adapter=adapter, columns=used, writer=_writer(section, rules, settler), corners=section.boxes_in, strict=strict, labels=names
    )


def _detection(
    used: Columns, section: SourceSection, source: Source, peek: Peek, rules: MediaSection, settler: Settler
) -> tuple[Adapter, str]:
    corners, why = section.boxes_in, ""
    if corners is None:
        corners, why = _proven_corners(used, peek), "as their areas show"
        if corners is None:
            raise unknown_corners(source.name)
    adapter = detection.DetectionAdapter(
        columns=used, prompt=section.prompt or detection.PROMPT, writer=_writer(section, rules, settler), corners=corners,
        labels=tuple(section.labels) or _class_names(used, source),
    )  # fmt: skip
    return adapter, f"; boxes {corners}, {why}" if why else ""


def _proven_corners(used: Columns, peek: Peek) -> BoxCorners | None:
    found: list[Objects] = []
    for row in peek.rows():
        try:
            objects = objects_of(used, row)
        except DataError:  # said when the record is read for use
            continue
        found += [objects] if objects is not None else []
    if found and all(objects.swift for objects in found):
        return "xyxy"
    return corners_by_area(found)


def _class_names(used: Columns, source: Source) -> tuple[str, ...]:
    """The names of class numbers that the source's schema knows."""
    if "objects" not in used.named:
        return class_names(source, used.named["category"]) if "category" in used.named and "bbox" in used.named else ()
    paths = ((used.named["objects"], key) for key in NAME_KEYS)
    return next((names for path in paths if (names := class_names(source, *path))), ())


def _writer(section: SourceSection, rules: MediaSection, settler: Settler) -> BoxWriter:
    return BoxWriter(form=section.boxes, max_pixels=section.max_pixels, rules=rules, settler=settler)
