"""What other trainers' data may hold that supervised fine-tuning has no use for: named and refused, never dropped in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foveate.config.data import SourceSection
from foveate.config.suggest import listed
from foveate.data.adapters.peek import Peek
from foveate.errors import DataError
from foveate.types import Adapter, Conversation, Row

# Answers that are worse than others, by TRL's, LLaMA-Factory's and ms-swift's names for them.
_PREFERENCE = ("chosen", "rejected", "rejected_response", "rejected_messages", "rejected_images", "kto_tag")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusing:
    """An adapter that refuses rows with columns of preference data that only later rows have."""

    adapter: Adapter
    late: tuple[str, ...]

    def __call__(self, row: Row) -> Conversation:
        """DataError `preference_data`."""
        for column in self.late:
            if row.get(column) is not None:
                raise _preference([column], "")
        return self.adapter(row)


def refusing(adapter: Adapter, section: SourceSection, columns: Sequence[str]) -> Adapter:
    """The adapter with these checks on each row."""
    late = () if _is_chosen(section) else tuple(column for column in _PREFERENCE if column not in columns)
    return Refusing(adapter=adapter, late=late)


def check_supervised(section: SourceSection, columns: Sequence[str], peek: Peek, where: str) -> None:
    """DataError `preference_data` for data of DPO, KTO and the like, unless `columns:` says which answers to train on."""
    found = [column for column in columns if column in _PREFERENCE]
    if "label" in columns and isinstance(next(peek.values("label"), None), bool):  # TRL's and ms-swift's mark of a good or bad answer
        found.append("label")
    if found and not _is_chosen(section):
        raise _preference(found, where)


def _is_chosen(section: SourceSection) -> bool:
    return bool({"answer", "messages"} & set(section.columns))


def _preference(found: Sequence[str], where: str) -> DataError:
    return DataError(
        f"this is preference data (it has {listed(found)}), and training here is on answers that are right", reason="preference_data",
        where=where, fix="name the answers to train on, e.g. `columns: {answer: chosen}` or `columns: {messages: messages}`",
    )  # fmt: skip
