"""A user's own function as an adapter: what it may return, and how its errors are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foveate.config.guard import UserCode
from foveate.data.adapters.calls import tools_of
from foveate.data.adapters.messages import answer_texts, conversation_of
from foveate.errors import DataError
from foveate.types import Conversation, Row

_FIELDS = frozenset({"messages", "answers", "tools"})
_EXPECTED = "return a list of {role, content} messages, or {messages, answers, tools}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionAdapter:
    """Calls the function with the row and turns what it returns into a conversation. `name`: `file.py:function`, for errors."""

    function: Callable[[Row], Any]
    name: str
    root: Path | None

    def __call__(self, row: Row) -> Conversation:
        """DataError `adapter_error` with the function's line when it fails or returns something else than a conversation."""
        with UserCode(self._failed):
            result = self.function(row)
        if isinstance(result, Conversation):
            return result
        answers: tuple[str, ...] = ()
        tools: tuple[str, ...] = ()
        try:
            if isinstance(result, Mapping):
                if set(result) - _FIELDS or "messages" not in result:
                    raise self._wrong(f"a dict with the keys {', '.join(map(str, result)) or '(none)'}")
                answers = answer_texts(result["answers"]) if result.get("answers") is not None else ()
                tools = tools_of(result.get("tools"))
                result = result["messages"]
            if not isinstance(result, (list, tuple)):
                raise self._wrong("nothing (None)" if result is None else f"a {type(result).__name__}")
            return replace(conversation_of(list(result), pools={}, root=self.root, answers=answers), tools=tools)
        except DataError as error:
            problem = error.problem if error.problem.startswith("adapter ") else f"what adapter {self.name} returned: {error.problem}"
            raise DataError(problem, reason=error.reason, where=error.where, fix=error.fix) from None

    def _failed(self, what: str) -> DataError:
        return DataError(f"adapter {self.name} failed{what}", reason="adapter_error", fix="mend the function, or the record")

    def _wrong(self, what: str) -> DataError:
        return DataError(f"adapter {self.name} returned {what}", reason="adapter_error", fix=_EXPECTED)
