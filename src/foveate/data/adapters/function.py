"""A user's own function as an adapter: what it may return, and how its errors are told."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.data.adapters.messages import answer_texts, conversation_of
from foveate.errors import DataError
from foveate.types import Conversation, Row

# What a mistake in a function of one row raises. Not every exception: an interrupt or exhausted memory is not the row's fault.
_MISTAKES = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError, RuntimeError, AssertionError, NameError)
_FIELDS = frozenset({"messages", "answers"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionAdapter:
    """Calls the function with the row and turns what it returns into a conversation."""

    function: Callable[[Row], Any]
    root: Path | None

    def __call__(self, row: Row) -> Conversation:
        """DataError `adapter_error` with the function's line when it fails or returns something else than a conversation."""
        try:
            result = self.function(row)
        except _MISTAKES as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise DataError(
                f"the adapter failed at {frame.filename}:{frame.lineno}: {type(error).__name__}: {error}",
                reason="adapter_error", fix="mend the function, or the record",
            ) from error  # fmt: skip
        if isinstance(result, Conversation):
            return result
        answers: tuple[str, ...] = ()
        if isinstance(result, Mapping):
            unknown = set(result) - _FIELDS
            if unknown or "messages" not in result:
                raise DataError(
                    f"the adapter returned a dict of {sorted(map(str, result))}", reason="adapter_error",
                    fix='return {"messages": [...]}, with "answers": [...] if there are several',
                )  # fmt: skip
            answers = answer_texts(result["answers"]) if result.get("answers") is not None else ()
            result = result["messages"]
        if not isinstance(result, (list, tuple)):
            raise DataError(
                f"the adapter returned a {type(result).__name__}", reason="adapter_error",
                fix="return a Conversation, a list of {role, content} messages, or {messages, answers}",
            )  # fmt: skip
        return conversation_of(list(result), pools={}, root=self.root, answers=answers)
