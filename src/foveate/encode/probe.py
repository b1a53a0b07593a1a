"""Finds out, once, how a template and a processor behave, by using them: never by the name of a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from foveate.encode import marks
from foveate.encode.labels import Turns, Unproven, check_rendering, wrap
from foveate.encode.media import LARGER, SMALL, MediaInputs
from foveate.encode.tap import Tap
from foveate.encode.template import FORMS, Form, Renderer, slots_of, to_chat
from foveate.errors import DataError, FoveateError, TemplateError
from foveate.types import Audio, Conversation, Image, Media, MediaKind, Message, Role, Text, Video

KINDS: tuple[MediaKind, ...] = ("image", "audio", "video")
# What processors raise on input that they can't use: they check little, so a medium of the wrong kind ends as any of these, deep
# inside. Each becomes a ledger line that quotes the error and keeps it as its cause.
REFUSALS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)
BLANK_PARTS: dict[MediaKind, Media] = {"image": Image(data=b""), "audio": Audio(data=b""), "video": Video(data=b"")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """How a template writes conversations."""

    form: Form
    placeholders: dict[str, str]  # media kind -> the token that the processor replaces by the medium's tokens
    turns: Turns
    control: frozenset[str]  # special tokens that mean something to template, processor or model
    cut_prompt: bool  # the template has no generation prompt: prompts are cut from training text
    notes: tuple[str, ...]


def find_facts(tap: Tap, render: Renderer, inputs: MediaInputs) -> Facts:
    """Raises TemplateError for a template under which nothing can be trained."""
    talk, placeholders = _best_talk(tap, render, inputs)
    turns, notes, cut_prompt = _turns(tap, talk)
    if talk.form == "strings" and placeholders:
        written = ", ".join(f"{kind} as {token}" for kind, token in placeholders.items())
        notes.append(f"the chat template takes only text: media are written where they stand in a message, {written}")
    if not cut_prompt and not _prompt_survives(tap, inputs, talk, placeholders):
        cut_prompt = True
        notes.append(
            "the processor changes the end of a prompt, so that it differs from the training text: Foveate asks with the training text cut "
            "before the answer"
        )
    found = {word for word in tap.special if any(word in text for text in talk.seen)}
    for kind, token in placeholders.items():
        expanded = expand_alone(tap, inputs, token, kind) or ""
        found |= {word for word in tap.special if word in expanded} | {token}
    own = [value for holder in (tap.processor, tap.tokenizer) for value in vars(holder).values()]
    named = {value for value in [*own, *tap.tokenizer.special_tokens_map.values()] if isinstance(value, str)}
    return Facts(
        form=talk.form,
        placeholders=placeholders,
        turns=turns,
        control=frozenset(found | (named & set(tap.special))),
        cut_prompt=cut_prompt,
        notes=tuple(notes),
    )


def expand_alone(tap: Tap, inputs: MediaInputs, token: str, kind: MediaKind) -> str | None:
    """What the processor makes of a placeholder by itself; None where it does not take it for one."""
    try:
        return tap.text_of(token, inputs.blank([LARGER[kind]]))
    except REFUSALS:
        return None


def _best_talk(tap: Tap, render: Renderer, inputs: MediaInputs) -> tuple[_Talk, dict[str, str]]:
    """The first form in which the template writes a conversation rightly and shows most kinds of media.

    Media go into strings only where the template shows none in lists: it then has no say in how they are written.
    """
    best: tuple[_Talk, dict[str, str]] | None = None
    failure: FoveateError | None = None
    for form in FORMS:
        if form == "strings" and best is not None and best[1]:
            break
        found = {kind: token for kind in KINDS if kind in inputs.kinds and (token := _placeholder(tap, render, inputs, form, kind))}
        # Some templates take only conversations that open with a medium.
        for opener in (None, *found):
            talk = _Talk(render, form, opener, found)
            try:
                talk.chat("user", "assistant")
            except FoveateError as error:
                failure = failure or error
                continue
            if best is None or len(found) > len(best[1]):
                best = (talk, found)
            break
    if best is None:
        raise failure
    return best


def _placeholder(tap: Tap, render: Renderer, inputs: MediaInputs, form: Form, kind: MediaKind) -> str | None:
    named = vars(tap.processor).get(f"{kind}_token")
    if form == "strings":
        candidates: Iterable[str] = [named] if isinstance(named, str) else []
    else:
        part = BLANK_PARTS[kind]
        try:
            once, twice = (
                render(to_chat(Conversation(messages=(Message(role="user", parts=(part,) * n + (Text(text="see"),)),)), form=form))
                for n in (1, 2)
            )
        except FoveateError:
            return None
        candidates = [token for token in dict.fromkeys([*tap.special, named]) if token and twice.count(token) == once.count(token) + 1]
    expanded = {token: expand_alone(tap, inputs, token, kind) for token in candidates}
    taken = [token for token, text in expanded.items() if text is not None]
    # The placeholder is the one that is replaced; a processor that keeps one token for a medium leaves it as it is.
    return next((token for token in taken if expanded[token] != token), taken[0] if taken else None)


class _Talk:
    """Renders small conversations whose texts are marked, and remembers what came out."""

    def __init__(self, render: Renderer, form: Form, opener: MediaKind | None, placeholders: dict[str, str]) -> None:
        self._render, self.form, self.opener, self._placeholders = render, form, opener, placeholders
        self.seen: list[str] = []

    def chat(self, *roles: Role, generation: bool = False) -> marks.Marked:
        """Turns of these roles, each saying one word. Raises TemplateError if they don't come out whole."""
        opening = () if self.opener is None else (BLANK_PARTS[self.opener],)
        messages = tuple(Message(role=role, parts=(*(() if i else opening), Text(text=f"word{i}"))) for i, role in enumerate(roles))
        slots = slots_of(Conversation(messages=messages))
        texts = [slot.text for slot in slots]
        plain = self._write(messages, texts, generation)
        marked = marks.take_out(self._write(messages, wrap(slots, texts, "around"), generation))
        try:
            check_rendering(marked, plain, slots, "around")
        except Unproven as problem:
            raise TemplateError(str(problem), where="chat template", fix="override it with `model.chat_template`") from problem
        self.seen.append(plain)
        return marked

    def opened_by(self, kind: MediaKind | None) -> _Talk:
        """The same, with a medium before the first word."""
        return _Talk(self._render, self.form, kind, self._placeholders)

    def _write(self, messages: tuple[Message, ...], texts: list[str], generation: bool) -> str:
        chat = to_chat(Conversation(messages=messages), form=self.form, texts=texts, placeholders=self._placeholders)
        return self._render(chat, generation=generation)


def _turns(tap: Tap, talk: _Talk) -> tuple[Turns, list[str], bool]:
    """How turns open and end, what a user should know of it, and whether there is no generation prompt."""
    whole = talk.chat("user", "assistant")
    longer = _try(talk, "user", "assistant", "user", "assistant")
    asked, bare = _try(talk, "user", generation=True), _try(talk, "user")
    begin, end = whole.spans[1]
    end_ids = _end_ids(tap, whole.clean, end)
    opening, gaps, notes = "", {""}, []
    silent = asked is None or bare is None or asked.clean == bare.clean
    if silent:
        notes.append(
            "the chat template has no generation prompt (add_generation_prompt): Foveate asks with the training text cut before the "
            "answer; other tools will need the same"
        )
    elif not whole.clean[:begin].startswith(asked.clean):
        notes.append(
            f"the chat template's generation prompt ({asked.clean[asked.spans[0][1] :]!r}) differs from how it opens an answer in a "
            f"conversation ({whole.clean[whole.spans[0][1] : begin]!r}); answers are generated with the former"
        )
    else:
        opening = asked.clean[len(bare.clean) :] if asked.clean.startswith(bare.clean) else asked.clean[asked.spans[0][1] :]
        gaps.add(whole.clean[len(asked.clean) : begin])
        if whole.clean[len(asked.clean) : begin].strip():
            added = whole.clean[len(asked.clean) : begin]
            notes.append(f"the chat template puts {added!r} before an answer; it is trained, as the model must write it by itself")
        notes += _notes_on_history(talk, longer)
    if longer is not None and _first_special(tap, longer.clean, longer.spans[1][1], longer.spans[2][0]) not in end_ids:
        notes.append("the chat template ends only the last turn with an end-of-turn token; earlier answers are trained without one")
    ordered = tuple(sorted(gaps, key=len, reverse=True))
    return Turns(opening=opening, gaps=ordered, end_ids=end_ids, special_ids=tap.special_ids), notes, silent


def _notes_on_history(talk: _Talk, longer: marks.Marked | None) -> list[str]:
    asked = _try(talk, "user", "assistant", "user", generation=True)
    if longer is None or asked is None or longer.clean.startswith(asked.clean):
        return []
    return ["the chat template renders earlier turns differently in a prompt than in a whole conversation of several turns"]


def _prompt_survives(tap: Tap, inputs: MediaInputs, talk: _Talk, placeholders: dict[str, str]) -> bool:
    """Whether a prompt is still the beginning of the whole conversation once the processor had both in hand."""
    kind = talk.opener or next(iter(placeholders), None)
    seen = talk.opened_by(kind)
    asked, whole = seen.chat("user", generation=True), seen.chat("user", "assistant")
    expanded = []
    for text in (asked.clean, whole.clean):
        media = inputs.blank([SMALL[kind]]) if kind else {}
        expanded.append(tap.text_of(text, tokenizer_options(tap, text) | media))
    return expanded[1].startswith(expanded[0]) or not whole.clean.startswith(asked.clean)


def _try(talk: _Talk, *roles: str, generation: bool = False) -> marks.Marked | None:
    try:
        return talk.chat(*roles, generation=generation)
    except (TemplateError, DataError):
        return None


def _end_ids(tap: Tap, text: str, end: int) -> frozenset[int]:
    found = _first_special(tap, text, end, len(text))
    if found is None:
        # Some tokenizers append the token themselves.
        last = tap.tokenize(text, tokenizer_options(tap, text)).ids[-1]
        found = last if last in tap.special_ids else None
    if found is None:
        raise TemplateError(
            "no token ends an assistant turn, so the model would never learn to stop",
            where="chat template",
            fix="end assistant turns with the end-of-sequence token in `model.chat_template`, e.g. {{ message['content'] }}{{ eos_token }}",
        )
    eos = tap.tokenizer.eos_token_id
    return frozenset({found} if eos is None else {found, eos})


def _first_special(tap: Tap, text: str, begin: int, end: int) -> int | None:
    places = {text.find(word, begin, end): (-len(word), word) for word in sorted(tap.special, key=len) if word}
    places.pop(-1, None)
    return tap.special[places[min(places)][1]] if places else None


def tokenizer_options(tap: Tap, text: str) -> dict[str, Any]:
    """As processors do: a template that writes the begin-of-sequence token itself gets no second one."""
    bos = tap.tokenizer.bos_token
    return {"add_special_tokens": False} if bos is not None and text.startswith(bos) else {}
