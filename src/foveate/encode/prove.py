"""Renders conversations with marks, and proves the rendering: see labels.py for what is proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from foveate.encode import marks
from foveate.encode.chat import Chat, Slot, loose_texts, slots_of, to_chat
from foveate.encode.definitions import check_definitions
from foveate.encode.labels import Unproven, Way, check_rendering, ways_of, wrap
from foveate.encode.probe import Facts
from foveate.encode.render import Asked, Renderer
from foveate.encode.sandbox import REFUSED
from foveate.encode.scalars import check_scalars
from foveate.encode.targets import Proven
from foveate.encode.turns import Bounds, Write
from foveate.errors import DataError, FoveateError, TemplateError, TemplateStopped
from foveate.types import Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A conversation rendered with marks, its rendering proven."""

    marked_text: str
    marked: marks.Marked
    proven: Proven


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ahead:
    """Texts of a conversation that were rendered together with others'; `conversation` is held so that its id stays its own."""

    conversation: Conversation
    shielded: str
    marked: tuple[str, str] | None  # in the first way of marking, and plain


class Prover:
    """Renders for one processor. `special`: the tokenizer's special tokens and their ids."""

    def __init__(self, render: Renderer, facts: Facts, special: dict[str, int]) -> None:
        self._render, self._facts, self._special = render, facts, special
        self._shield = marks.Shield(facts.control)
        self._blocks = render.blocks
        self._ahead: dict[int, _Ahead] = {}

    def ahead(self, conversations: Sequence[Conversation], *, marked: bool) -> None:
        """Render conversations together, which costs one question to the sandbox instead of several for each.

        With `marked`, also as `rendered` asks for them. What was rendered before is forgotten; what fails is left for them to ask.
        """
        self._ahead = {}
        asked: list[Asked] = []
        starts: list[tuple[Conversation, int]] = []
        for conversation in conversations:
            try:
                wanted = [self._shielded(conversation, "", generation=False), *(self._first(conversation, "") if marked else [])]
            except (DataError, TemplateError):
                continue
            starts.append((conversation, len(asked)))
            asked += wanted
        if not asked:
            return
        try:
            texts = self._render.several(asked, "")
        except TemplateStopped:  # by one of them: each is asked for by itself, so that the one is named
            return
        for conversation, start in starts:
            shielded, *more = texts[start : start + (3 if marked else 1)]
            if all(isinstance(text, str) for text in (shielded, *more)):
                pair = (more[0], more[1]) if more else None
                self._ahead[id(conversation)] = _Ahead(conversation=conversation, shielded=shielded, marked=pair)

    def rendered(self, conversation: Conversation, where: str) -> Rendered:
        """The conversation with marks, in the first way of marking that is proven right. Raises TemplateError, or DataError."""
        self._check_calls(conversation, where)
        plain: str | FoveateError | None = None
        problem: Exception | None = None
        ahead = self._ahead.get(id(conversation))
        for way in ways_of(conversation):
            slots = slots_of(conversation, divided=way.divided)
            self._check_marks(conversation, slots, where)
            text: str | FoveateError
            if plain is not None:
                (text,) = self._render.several([self._marked(conversation, slots, way)], where)
            elif ahead is not None and ahead.marked is not None:
                text, plain = ahead.marked
            else:  # the plain one once, and together with the first marked one
                text, plain = self._render.several(self._first(conversation, where), where)
            if isinstance(plain, FoveateError):
                raise plain
            try:
                return self._proven(conversation, slots, way, text, plain)
            except (Unproven, *REFUSED) as error:
                problem = problem or error
        raise TemplateError(
            f"labels can't be proven: {problem}",
            where=where,
            fix=self._fix(str(problem)),
        )

    def _fix(self, problem: str) -> str:
        ways = ["set `train: false` on that turn", "use a template that renders every turn as it is (`model.chat_template`)"]
        if "the reasoning of" in problem:
            ways.insert(0, "take the reasoning out of the record")
        options = ", ".join(self._render.options)
        return ", or ".join(ways) + (f"; or leave out `model.template_options` ({options}), if that is the cause" if options else "")

    def shielded(self, conversation: Conversation, where: str, *, generation: bool = False) -> str:
        """The conversation as rendered for the processor, without marks."""
        ahead = None if generation else self._ahead.get(id(conversation))
        if ahead is not None:
            text = ahead.shielded
        else:
            chat = self._shielded(conversation, where, generation=generation).chat
            text = self._render(chat, where=where, generation=generation)
        return text if generation else text + self._facts.turns.closer(conversation)

    def _shielded(self, conversation: Conversation, where: str, *, generation: bool) -> Asked:
        divided = next(iter(ways_of(conversation))).divided
        slots = slots_of(conversation, divided=divided)
        self._check_marks(conversation, slots, where)
        asked = self._asked(conversation, self._hidden(slots), Way(divided=divided))
        return replace(asked, generation=generation)

    def _first(self, conversation: Conversation, where: str) -> list[Asked]:
        """The conversation in the first way of marking, and plain."""
        way = next(iter(ways_of(conversation)))
        slots = slots_of(conversation, divided=way.divided)
        self._check_marks(conversation, slots, where)
        return [self._marked(conversation, slots, way), Asked(chat=self._chat(conversation))]

    def _marked(self, conversation: Conversation, slots: tuple[Slot, ...], way: Way) -> Asked:
        return self._asked(conversation, wrap(slots, self._hidden(slots), way), way, marked=self._blocks)

    def _proven(
        self, conversation: Conversation, slots: tuple[Slot, ...], way: Way, text: str | FoveateError, plain: str
    ) -> Rendered:
        if isinstance(text, FoveateError):
            raise text
        closer = self._facts.turns.closer(conversation)
        text, plain = text + closer, plain + closer
        marked = marks.take_out(text)
        dropped = check_rendering(marked, plain, slots, way, droppable=self._droppable(conversation, slots))
        write = self._writer(way)
        bounds = Bounds(
            conversation=conversation, slots=slots, marked=marked, way=way, turns=self._facts.turns, special=self._special, write=write,
            dropped=dropped,
        )  # fmt: skip
        extents = bounds.extents()
        check_definitions(conversation, marked, slots, extents, turns=self._facts.turns, special=self._special, write=write)
        check_scalars(conversation, marked, slots, way, {message: (extent.begin, extent.end) for message, extent in extents.items()})
        if extents:
            places = {len(slots) + n: (extent.begin, extent.end) for n, extent in enumerate(extents.values())}
            text = marks.put_in(marked, places)
            marked = marks.take_out(text)
        return Rendered(
            marked_text=text, marked=marked, proven=Proven(slots=slots, dropped=dropped, extents=extents, blocks=self._blocks)
        )

    def _check_marks(self, conversation: Conversation, slots: tuple[Slot, ...], where: str) -> None:
        marks.check_unmarked([*(slot.text for slot in slots), *loose_texts(conversation)], where, spare=len(conversation.messages))

    def _writer(self, way: Way) -> Write:
        def write(conversation: Conversation, generation: bool) -> marks.Marked:
            slots = slots_of(conversation, divided=way.divided)
            asked = self._asked(conversation, wrap(slots, self._hidden(slots), way), way)
            return marks.take_out(self._render(asked.chat, generation=generation))

        return write

    def _hidden(self, slots: tuple[Slot, ...]) -> list[str]:
        return [self._shield.hide(slot.text) for slot in slots]

    def _asked(self, conversation: Conversation, texts: list[str], way: Way, *, marked: bool = False) -> Asked:
        return Asked(chat=self._chat(conversation, texts, divided=way.divided), marked=marked)

    def _chat(self, conversation: Conversation, texts: list[str] | None = None, *, divided: bool = False) -> Chat:
        facts = self._facts
        return to_chat(
            conversation,
            form=facts.form,
            texts=texts,
            placeholders=facts.placeholders,
            arguments=facts.habits.arguments or "object",
            divided=divided,
            hide=str if texts is None else self._shield.hide,
        )

    def _droppable(self, conversation: Conversation, slots: tuple[Slot, ...]) -> frozenset[int]:
        """The slots of reasoning that may be missing: of turns that are not trained, and of those before the last one where the template
        is known to write it there."""
        last = max((i for i, message in enumerate(conversation.messages) if message.role == "assistant"), default=-1)
        found = set()
        for i, slot in enumerate(slots):
            if slot.kind == "reasoning" and slot.message < last:
                kind = "key" if conversation.messages[slot.message].reasoning.strip() else "literal"
                if not slot.trained or kind in self._facts.habits.thoughts:
                    found.add(i)
        return frozenset(found)

    def _check_calls(self, conversation: Conversation, where: str) -> None:
        if conversation.tools and not self._facts.habits.tools:
            raise TemplateError(
                "the record defines tools, and the chat template does not write them",
                where=where,
                fix="use a template with tools (`model.chat_template`), or take `tools` out of the records",
            )
        if self._facts.habits.arguments is None and any(message.tool_calls for message in conversation.messages):
            raise TemplateError(
                "the record calls tools, and the chat template writes no calls",
                where=where,
                fix="use a template with tools (`model.chat_template`), or write the calls out in the records' texts",
            )
