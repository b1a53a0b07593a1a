"""Finds out, once, how a template and a processor behave, by using them: never by the name of a model."""

from __future__ import annotations

import os.path
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from foveate.encode import marks
from foveate.encode.chat import FORMS, Form, to_chat
from foveate.encode.habits import Habits, find_habits
from foveate.encode.media import LARGER, SMALL, MediaInputs
from foveate.encode.render import Renderer
from foveate.encode.sandbox import FIXED_DATE, REFUSED
from foveate.encode.talk import BLANK_PARTS, Talk
from foveate.encode.tap import Tap
from foveate.encode.turns import Turns, special_pattern
from foveate.errors import FoveateError, TemplateError
from foveate.types import Conversation, MediaKind, Message, Text

KINDS: tuple[MediaKind, ...] = ("image", "audio", "video")
# What processors raise on input that they can't use: they check little, so a medium of the wrong kind ends as any of these, deep
# inside. Each becomes a ledger line that quotes the error and keeps it as its cause.
REFUSALS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """How a template writes conversations."""

    form: Form
    placeholders: dict[str, str]  # media kind -> the token that the processor replaces by the medium's tokens; "" where it needs none
    talks: dict[str, str]  # media kind -> a small conversation about one, as rendered
    turns: Turns
    habits: Habits
    control: frozenset[str]  # special tokens that mean something to template, processor or model
    cut_prompt: bool  # the template has no generation prompt: prompts are cut from training text
    notes: tuple[str, ...]


def find_facts(tap: Tap, render: Renderer, inputs: MediaInputs) -> Facts:
    """Raises TemplateError for a template under which nothing can be trained, TemplateStopped for one that has no end."""
    talk, placeholders = _best_talk(tap, render, inputs)
    if "audio" in placeholders and inputs.window is not None and not _cuts(tap, inputs, talk, inputs.window):
        most_s = vars(tap.processor).get("max_audio_len")  # GLM-ASR hears window by window, as many as go into that
        inputs.window = int(most_s * inputs.rate_hz) // inputs.window * inputs.window if most_s is not None else None
    turns, notes = _turns(tap, talk)
    cut_prompt = turns.silent
    habits = find_habits(talk, tap.special)
    turns = _with_calls(turns, habits, tap)
    if habits.call_closer and not turns.closers[0]:
        notes.append(
            f"the chat template ends no turn that calls a tool: {habits.call_closer!r}, which comes next, ends it, and is added behind the "
            "last one"
        )
    if render.dated:
        notes.append(
            f"the chat template writes the date: here it is always {FIXED_DATE[2]}.{FIXED_DATE[1]}.{FIXED_DATE[0]}, so that a run can be "
            "resumed on another day" + ("; set model.template_options.date_string for another" if "date_string" in render.variables else "")
        )
    if habits.forgets:
        notes.append(
            "the chat template leaves reasoning out of all turns but the last ones: it is trained where the template writes it, and "
            "elsewhere the answer alone"
        )
    if talk.form == "strings" and any(placeholders.values()):
        written = ", ".join(f"{kind} as {token}" for kind, token in placeholders.items() if token)
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
        talks={kind: talk.opened_by(kind).chat("user", "assistant").clean for kind in placeholders},
        turns=turns,
        habits=habits,
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


def _best_talk(tap: Tap, render: Renderer, inputs: MediaInputs) -> tuple[Talk, dict[str, str]]:
    """The first form in which the template writes a conversation rightly and shows most kinds of media.

    Media go into strings only where the template shows none in lists: it then has no say in how they are written.
    """
    best: tuple[Talk, dict[str, str]] | None = None
    failure: FoveateError | None = None
    for form in FORMS:
        if form == "strings" and best is not None and best[1]:
            break
        found = {kind: token for kind in KINDS if kind in inputs.kinds and (token := _placeholder(tap, render, inputs, form, kind))}
        # Some templates take only conversations that open with a medium.
        for opener in (None, *found):
            talk = Talk(render, form, opener, found)
            try:
                talk.chat("user", "assistant")
            except REFUSED as error:
                failure = failure or error
                continue
            if best is None or len(found) > len(best[1]):
                best = (talk, found)
            break
    if best is None:
        raise failure
    best[1].update({kind: "" for kind in KINDS if kind in inputs.kinds - set(best[1]) and _places_itself(tap, inputs, kind)})
    return best


def _places_itself(tap: Tap, inputs: MediaInputs, kind: MediaKind) -> bool:
    """Whether the processor adds a medium's tokens to a text that has no place for it (Florence-2)."""
    try:
        return tap.text_of("see", inputs.blank([SMALL[kind]])) != tap.text_of("see", {})
    except REFUSALS:
        return False


def _cuts(tap: Tap, inputs: MediaInputs, talk: Talk, samples: int) -> bool:
    """Whether twice as much silence as `samples` comes back no longer, as features: Whisper's extractor cuts it, unless told not to.

    A processor that refuses the longer one says so itself, of each record.
    """
    text, counts = talk.opened_by("audio").chat("user", "assistant").clean, []
    for length in (samples, 2 * samples):
        arguments = tokenizer_options(tap, text) | inputs.blank([replace(SMALL["audio"], shape=(length,))])
        try:
            outputs = tap.processor(text=[text], return_tensors="pt", **arguments)
        except REFUSALS:
            return False
        counts.append(sum(value.numel() for value in outputs.values() if isinstance(value, Tensor) and value.is_floating_point()))
    return counts[0] == counts[1]


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
        except REFUSED:
            return None
        candidates = [token for token in dict.fromkeys([*tap.special, named]) if token and twice.count(token) == once.count(token) + 1]
    candidates = list(candidates)
    expanded = {token: expand_alone(tap, inputs, token, kind) for token in candidates}
    if form != "strings" and candidates and set(expanded.values()) == {None}:  # HunYuan-VL's processor takes it only between its two marks
        expanded = {whole: expand_alone(tap, inputs, whole, kind) for whole in (_between_marks(tap, once, token) for token in candidates)}
    if kind == "image" and candidates and set(expanded.values()) == {None}:
        inputs.flat_images = not inputs.flat_images
        expanded = {token: expand_alone(tap, inputs, token, kind) for token in candidates}
    taken = [token for token, text in expanded.items() if text is not None]
    # The placeholder is the one that is replaced; a processor that keeps one token for a medium leaves it as it is.
    return next((token for token in taken if expanded[token] != token), taken[0] if taken else None)


def _between_marks(tap: Tap, text: str, token: str) -> str:
    """`token` with the special tokens right before and behind it in `text`."""
    before, _, behind = text.partition(token)
    words = sorted(tap.special, key=len, reverse=True)
    left, right = next((word for word in words if before.endswith(word)), ""), next((word for word in words if behind.startswith(word)), "")
    return left + token + right


def _turns(tap: Tap, talk: Talk) -> tuple[Turns, list[str]]:
    """How turns open and end, and what a user should know of it."""
    whole = talk.chat("user", "assistant")
    longer = talk.attempt("user", "assistant", "user", "assistant")
    asked, bare = talk.attempt("user", generation=True), talk.attempt("user")
    begin, end = whole.spans[1]
    between = longer.clean[longer.spans[1][1] : longer.spans[2][0]] if longer is not None else None
    end_ids, closing_ids, closer = _ends(tap, whole.clean, end, between)
    opening, gaps, notes = "", {""}, []
    silent = asked is None or bare is None or asked.clean == bare.clean
    if silent:
        notes.append(
            "the chat template has no generation prompt (add_generation_prompt): Foveate asks with the training text cut before the "
            "answer; other tools will need the same"
        )
        if whole.clean.startswith(bare.clean if bare is not None else "\0") and whole.clean[len(bare.clean) : begin].isspace():
            # `[/INST] red`: the prompt ends with the user's turn, and the space before the answer is the model's to write.
            opening = bare.clean[bare.spans[0][1] :]
            gaps.add(whole.clean[len(bare.clean) : begin])
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
    if closer:
        notes.append(
            f"the chat template ends no turn itself: {closer!r}, with which the next one begins, ends it, and is added behind the last one"
        )
    elif between is not None and not end_ids & {tap.special[word] for word in special_pattern(tap.special).findall(between)}:
        notes.append("the chat template ends only the last turn with an end-of-turn token; earlier answers are trained without one")
    ordered = tuple(sorted(gaps, key=len, reverse=True))
    turns = Turns(
        opening=opening,
        gaps=ordered,
        end_ids=end_ids,
        special_ids=tap.special_ids,
        closing_ids=closing_ids,
        closers=(closer, closer),
        silent=silent,
    )
    return turns, notes


def _notes_on_history(talk: Talk, longer: marks.Marked | None) -> list[str]:
    asked = talk.attempt("user", "assistant", "user", generation=True)
    if longer is None or asked is None or longer.clean.startswith(asked.clean):
        return []
    return ["the chat template renders earlier turns differently in a prompt than in a whole conversation of several turns"]


def _prompt_survives(tap: Tap, inputs: MediaInputs, talk: Talk, placeholders: dict[str, str]) -> bool:
    """Whether a prompt is still the beginning of the whole conversation once the processor had both in hand."""
    kind = talk.opener or next(iter(placeholders), None)
    seen = talk.opened_by(kind)
    asked, whole = seen.chat("user", generation=True), seen.chat("user", "assistant")
    expanded = []
    for text in (asked.clean, whole.clean):
        media = inputs.blank([SMALL[kind]]) if kind else {}
        expanded.append(tap.text_of(text, tokenizer_options(tap, text) | media))
    return expanded[1].startswith(expanded[0]) or not whole.clean.startswith(asked.clean)


def _ends(tap: Tap, text: str, end: int, between: str | None) -> tuple[frozenset[int], frozenset[int], str]:
    """(tokens that may end a turn, those that come before it, what ends the last turn if the template writes nothing).

    `text` ends with an answer that ends at `end`; `between` stands between an answer and the next question.
    """
    found, closer = [(word.end(), word.group()) for word in special_pattern(tap.special).finditer(text[end:])], ""
    if found:
        # What follows an answer in every place is its end; what only the conversation's end brings, or the next turn, is not.
        common = len(os.path.commonprefix([text[end:], between or ""]))
        words = [word for place, word in found if place <= common] or [found[0][1]]
    else:
        # Some tokenizers append the token themselves.
        last = tap.tokenize(text, tokenizer_options(tap, text)).ids[-1]
        opens = special_pattern(tap.special).match((between or "").lstrip())
        if last in tap.special_ids:
            words = [next(word for word, token in tap.special.items() if token == last)]
        elif opens is not None:
            words, closer = [opens.group()], opens.group()
        else:
            raise TemplateError(
                "no token ends an assistant turn, so the model would never learn to stop",
                where="chat template",
                fix="end assistant turns with the end-of-sequence token in `model.chat_template`, "
                "e.g. {{ message['content'] }}{{ eos_token }}",
            )
    ids = [tap.special[word] for word in words]
    eos = tap.tokenizer.eos_token_id
    return frozenset({ids[-1]} if eos is None else {ids[-1], eos}), frozenset(ids[:-1]), closer


def _with_calls(turns: Turns, habits: Habits, tap: Tap) -> Turns:
    """The same, with what ends a turn that calls a tool."""
    if not habits.call_end:
        return turns
    closers = (turns.closers[0], habits.call_closer if habits.call_closer or not turns.closers[0] else "")
    return replace(turns, end_ids=turns.end_ids | {tap.special[habits.call_end]}, closers=closers)


def tokenizer_options(tap: Tap, text: str) -> dict[str, Any]:
    """As processors do: a template that writes the begin-of-sequence token itself gets no second one."""
    bos = tap.tokenizer.bos_token
    return {"add_special_tokens": False} if bos is not None and text.startswith(bos) else {}
