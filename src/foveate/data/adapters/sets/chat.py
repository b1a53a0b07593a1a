"""Conversations: turns of a person and an assistant, with a picture or none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foveate.data.adapters.columns import Columns
from foveate.data.adapters.messages import MessagesAdapter
from foveate.data.adapters.parts import strip_nulls, text_value
from foveate.data.adapters.sets.base import NamedSet
from foveate.data.adapters.sharegpt import ShareGptAdapter
from foveate.data.json_text import read_json
from foveate.errors import DataError
from foveate.types import Adapter, Conversation, Row

_PERSON = ("human", "user")
_TAG = re.compile(r"<image\s*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlavaAdapter:
    """from/value turns and one picture or none.

    Where no turn has an `<image>` tag, the picture is put before the first human turn: whole parts of LLaVA-OneVision-Data have none
    (https://github.com/LLaVA-VL/LLaVA-NeXT/issues/459). `as_text`: the turns are JSON text, and every tag shows the one picture.
    """

    columns: Columns
    adapter: ShareGptAdapter
    as_text: bool = False

    def __call__(self, row: Row) -> Conversation:
        """DataError `bad_json` when the text holds no list of turns."""
        column, picture = self.columns.named["messages"], self.columns.named.get("image", "image")
        turns, image = self._turns(row[column], column), row.get(picture)
        tags = sum(len(_TAG.findall(_asked(turn))) for turn in turns)
        if image is not None and not tags:
            turns = _with_tag(turns)
        images = [image] * max(tags, 1) if self.as_text and image is not None else image
        return self.adapter({**row, column: turns, picture: images})

    def _turns(self, value: Any, column: str) -> list:
        if self.as_text:
            try:
                value = read_json(text_value(value, column))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{column} is not JSON: {error}", reason="bad_json", fix="mend or remove the record") from None
        if not isinstance(value, (list, tuple)) or not value:
            raise DataError(f"{column} is empty or no list", reason="wrong_type", fix="write a list of {from, value}")
        turns = strip_nulls(value)
        if not self.as_text:
            return turns
        # There a tag may be written `<image >`; the ShareGPT adapter knows `<image>`.
        return [{**turn, "value": _TAG.sub("<image>", _asked(turn))} if _asked(turn) else turn for turn in turns]


def _asked(turn: Any) -> str:
    """The text of a person's turn; "" for all others, and for what the ShareGPT adapter will refuse."""
    value = turn.get("value") if isinstance(turn, Mapping) and turn.get("from") in _PERSON else None
    return value if isinstance(value, str) else ""


def _with_tag(turns: list) -> list:
    for number, turn in enumerate(turns):
        if isinstance(turn, Mapping) and turn.get("from") in _PERSON:
            return [*turns[:number], {**turn, "value": f"<image>\n{turn.get('value', '')}"}, *turns[number + 1 :]]
    return turns


def _llava(columns: Columns, prompt: str | None) -> Adapter:
    _refuse(prompt)
    return LlavaAdapter(columns=columns, adapter=ShareGptAdapter(columns=columns))


def _unimm(columns: Columns, prompt: str | None) -> Adapter:
    _refuse(prompt)
    return LlavaAdapter(columns=columns, adapter=ShareGptAdapter(columns=columns), as_text=True)


def _messages(columns: Columns, prompt: str | None) -> Adapter:
    _refuse(prompt)
    return MessagesAdapter(columns=columns)


def _refuse(prompt: str | None) -> None:
    if prompt is not None:
        raise DataError("this set has its own user turns", reason="bad_section", where="prompt", fix="remove `prompt:`")


_TURNS = {"messages": ("conversations",), "image": ("image",)}
SETS = {
    "llava_instruct": NamedSet(
        hub="liuhaotian/LLaVA-Instruct-150K", splits=("train",), build=_llava, columns=_TURNS, absent=frozenset({"image"}),
        empty=frozenset({"image"}),
        local="download one of its files (`hf download --repo-type dataset liuhaotian/LLaVA-Instruct-150K llava_instruct_150k.json`) and "
        "COCO's pictures, and write `path: llava_instruct_150k.json` and `media_root: train2017`",
    ),
    "llava_onevision": NamedSet(
        hub="lmms-lab/LLaVA-OneVision-Data", splits=("train",), build=_llava, columns=_TURNS, empty=frozenset({"image"}),
        configs=("sroie", "llavar_gpt4_20k", "iam(cauldron)"),
    ),
    "unimm_chat": NamedSet(
        hub="Yirany/UniMM-Chat", splits=("train",), build=_unimm, columns={"messages": ("conversation",), "image": ("image",)}
    ),
    "tulu3": NamedSet(hub="allenai/tulu-3-sft-mixture", splits=("train",), build=_messages, columns={"messages": ("messages",)}),
}  # fmt: skip
