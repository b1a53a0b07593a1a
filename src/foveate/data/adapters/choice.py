"""Multiple choice: a question, its choices, and the one that is right.

The user's turn, line by line; lines without content are left out:

    <hint>
    <question>
    A. <first choice>
    B. <second choice>
    Answer with the option's letter from the given choices directly.

The last line is the prompt (LLaVA's, which most evaluations of multiple choice use too). The answer is the letter alone.
"""

from __future__ import annotations

import ast
import json
import math
import re
import string
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from foveate.config.suggest import listed
from foveate.data.adapters.columns import Columns, fill
from foveate.data.adapters.parts import strip_nulls, text_value
from foveate.data.adapters.simple import dialogue
from foveate.errors import DataError
from foveate.types import Conversation, Row

PROMPT = "Answer with the option's letter from the given choices directly."
LETTERS = string.ascii_uppercase
AnswerKind = Literal["auto", "index", "letter", "text"]
# `A`, `option_a`, `Choice A`, `optionA`: one column for each choice.
_LETTERED = re.compile(r"(?P<stem>(?:option|choice|opt)[_ ]?)?(?P<letter>[a-z])", re.IGNORECASE)
_NAMED_LETTER = re.compile(r"\(?([A-Za-z])[.):]?")
_WHOLE = re.compile(r"[+-]?\d{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceAdapter:
    """Roles: question, choices, answer; hint, system and media besides.

    Choices are a list (also as JSON or Python text, or ARC's {"text": [...], "label": [...]}), or one column each, named in `lettered`
    from A on. The answer is a position from 0, a letter, or a choice's text: with `answer_is: auto` whatever of these it can be, and
    a record where that leaves two choices is refused. `prompt` is the last line, `{column}` filled in.
    """

    columns: Columns
    prompt: str = PROMPT
    lettered: tuple[str, ...] = ()
    answer_is: AnswerKind = "auto"

    def __call__(self, row: Row) -> Conversation:
        """The question with its lettered choices, and the letter. DataError `bad_choice` when the answer is not one of them."""
        question = text_value(self.columns.need(row, "question"), "the question")
        choices, labels, numbers = self._choices(row)
        place = place_of(self.columns.need(row, "answer"), choices, labels=labels, kind=self.answer_is, numbers=numbers)
        letter = LETTERS[place]
        hint = self.columns.get(row, "hint")
        lines = [text_value(hint, "the hint").strip()] if hint is not None else []
        lines.append(question.strip())
        lines += [f"{name}. {choice}" for name, choice in zip(LETTERS, choices, strict=False)]
        lines.append(fill(self.prompt, row).strip())
        return dialogue(self.columns, row, "\n".join(line for line in lines if line), letter, (letter,))

    def _choices(self, row: Row) -> tuple[list[str], list[str], bool]:
        """The choices' texts, their own labels if they have some, and whether some of them are numbers."""
        if self.lettered:
            found, labels = _used_cells([row.get(column) for column in self.lettered], self.lettered), []
        else:
            found, labels = _listed_choices(self.columns.need(row, "choices"))
        choices = [text_value(choice, f"choice {name}").strip() for name, choice in zip(LETTERS, found, strict=False)]
        if not 2 <= len(found) <= len(LETTERS):
            raise DataError(f"{len(found)} choices", reason="bad_choice", fix=f"give 2 to {len(LETTERS)} choices, or remove the record")
        if "" in choices:
            raise DataError(f"choice {LETTERS[choices.index('')]} is empty", reason="bad_choice", fix="fill it in, or remove the record")
        return choices, labels, any(isinstance(choice, (int, float)) for choice in found)


def place_of(answer: Any, choices: Sequence[str], *, labels: Sequence[str] = (), kind: AnswerKind = "auto", numbers: bool = False) -> int:
    """The position of the right choice, from 0. DataError `bad_choice` when the answer names none, or could name several.

    A number among choices that are texts is a position; among `numbers` it may be one of them, too.
    """
    if isinstance(answer, (list, tuple)):
        if len(answer) != 1:
            raise DataError(f"{len(answer)} right answers", reason="bad_choice", fix="one choice must be right; or use `format: qa`")
        answer = answer[0]
    number = isinstance(answer, (int, float)) and not isinstance(answer, bool) and answer == answer // 1
    text = str(int(answer)) if number else text_value(answer, "the answer").strip()
    found: set[int] = set()
    if labels:
        found = {at for at, label in enumerate(labels) if label == text}
    else:
        if kind in ("auto", "index") and _WHOLE.fullmatch(text) and 0 <= int(text) < len(choices):
            found.add(int(text))
        if kind in ("auto", "letter") and (match := _NAMED_LETTER.fullmatch(text)):
            found |= {LETTERS.index(match[1].upper())} & set(range(len(choices)))
    if kind == "text" or (kind == "auto" and (numbers or not number)):
        found |= {at for at, choice in enumerate(choices) if choice == text}
    if len(found) == 1:
        return found.pop()
    if not found:
        raise DataError(
            f"the answer {text[:60]!r} is none of the choices {listed(labels or LETTERS[: len(choices)], 26)}", reason="bad_choice",
            fix="give the position (from 0), the letter, or the text of a choice",
        )  # fmt: skip
    names = " or ".join(LETTERS[at] for at in sorted(found))
    fix = "give the letter, or the position as a number, from 0"
    raise DataError(f"the answer {text[:60]!r} could be choice {names}", reason="bad_choice", fix=fix)


def lettered_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that hold one choice each, from A on (`A`, `B`, ...; `option_a`, ...); () when there are not at least A and B."""
    groups: dict[str, dict[str, str]] = {}
    for column in columns:
        if match := _LETTERED.fullmatch(column):
            # `A` and `a` could be two things; a prefix makes it clear.
            stem = match["stem"].lower() if match["stem"] else "A" if column.isupper() else "a"
            groups.setdefault(stem, {})[match["letter"].upper()] = column
    runs = []
    for group in groups.values():
        run = []
        for letter in LETTERS:
            if letter not in group:
                break
            run.append(group[letter])
        if len(run) >= 2:
            runs.append(tuple(run))
    return runs[0] if len(runs) == 1 else ()


def _used_cells(cells: Sequence[Any], columns: Sequence[str]) -> list[Any]:
    """The cells up to the last one that is filled: a question with fewer choices leaves the last columns empty."""
    empty = [cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)) for cell in cells]
    count = max((at + 1 for at, is_empty in enumerate(empty) if not is_empty), default=0)
    if any(empty[:count]):
        column = columns[empty.index(True)]
        raise DataError(f"choice {column!r} is empty, a later one is not", reason="bad_choice", fix="fill it in, or remove the record")
    return list(cells[:count])


def _listed_choices(value: Any) -> tuple[list[Any], list[str]]:
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping):  # ARC's {"text": [...], "label": [...]}, or {"A": ..., "B": ...}
        value = strip_nulls(value)
        if isinstance(value.get("text"), list) and isinstance(value.get("label"), list) and len(value["text"]) == len(value["label"]):
            return value["text"], [str(label) for label in value["label"]]
        letters = lettered_columns(list(value))
        if letters and len(letters) == len(value):
            return [value[letter] for letter in letters], []
        raise DataError(
            f"the choices are an object with {listed(value)}", reason="wrong_type", fix="write a list of texts, or one column for each"
        )
    if not isinstance(value, (list, tuple)):
        raise DataError(f"the choices are a {type(value).__name__}", reason="wrong_type", fix="write a list of texts")
    return list(value), []


def _parsed(text: str) -> Any:
    """A list written as text: JSON's, or Python's as data frames write it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in the text
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise DataError("the choices are text, and no list", reason="wrong_type", fix='write a list: ["first", "second"]') from None
