"""Conversation -> Example, for every processor that follows the Hugging Face contract. No branch knows a family.

Token-aligned outputs ([1, T]) become [T]; media outputs stay as the processor gives them for one conversation, media joined
along their first axis (or their second, where the first is a batch axis: `Family.batched_media`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveate.config.media import MediaSection
from foveate.encode import marks
from foveate.encode.expand import Expansion
from foveate.encode.labels import Placement, Unproven, check_rendering, target_tokens, wrap
from foveate.encode.lean import VERSION as LEAN_VERSION
from foveate.encode.lean import PixelForm, lean_images
from foveate.encode.media import MediaInputs
from foveate.encode.probe import BLANK_PARTS, KINDS, REFUSALS, find_facts, tokenizer_options
from foveate.encode.tap import Heard, Tap
from foveate.encode.template import Renderer, Slot, slots_of, to_chat
from foveate.errors import DataError, FoveateError, ModelError, TemplateError
from foveate.types import Conversation, Example, Length, Message, Text, kind_of

if TYPE_CHECKING:
    from transformers import BatchFeature, ProcessorMixin

Positions = Callable[[dict[str, Tensor]], Tensor]
IGNORED = -100
_VERSION = 2  # raise when the same conversation would encode differently: checkpoints then refuse to mix
# Outputs that are not inputs of a model, or that batching makes anew.
_DROPPED = frozenset({"attention_mask", "labels", "offset_mapping", "assistant_masks", "text_replacement_offsets", "special_tokens_mask"})
_TOKEN_NAMES = frozenset({"input_ids", "token_type_ids", "mm_token_type_ids"})
_FETCHING = {"fetch", "fetch_max_mb", "fetch_timeout_s", "fetch_cache"}  # rules that change where media come from, not what they are
_PARTS = frozenset({"image_processor", "video_processor", "feature_extractor", "audio_processor"})
_WAYS: tuple[tuple[Placement, bool], ...] = (("around", False), ("within", False), ("within", True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rendered:
    """A conversation rendered with marks, its rendering proven."""

    marked_text: str
    marked: marks.Marked
    slots: tuple[Slot, ...]


_RULES = MediaSection()


class Encoder:
    """Encodes conversations with one processor. Picklable; holds no weights.

    With `lean`, and where the processor allows it, `pixel_values` are bytes, and `pixel_form` says what they stand for (else None).

    Raises TemplateError on construction if nothing could be trained with the processor's chat template.
    """

    def __init__(
        self, processor: ProcessorMixin, *, positions: Positions | None = None, rules: MediaSection = _RULES, lean: bool = False
    ) -> None:
        self._made_from = (processor, positions, rules, lean)
        self._tap = Tap(processor)
        images, self._not_lean = lean_images(processor) if lean else (None, "")
        self.pixel_form: PixelForm | None = None
        if images is not None:
            self._tap.processor.image_processor, self.pixel_form = images, images.form
        self._render = Renderer(processor)
        self._positions = positions
        self._inputs = MediaInputs(processor, rules=rules, arrays=images is not None)
        self._facts = find_facts(self._tap, self._render, self._inputs)
        self._shield = marks.Shield(self._facts.control)
        self._tap.forbid(frozenset(self._tap.special[word] for word in self._facts.control if word in self._tap.special))
        self._expansion = Expansion(self._tap, self._inputs, self._facts)

    def __reduce__(self) -> tuple[Callable[..., Encoder], tuple[Any, ...]]:
        return _rebuild, self._made_from

    def __call__(self, conversation: Conversation) -> Example:
        """Encode, with every label proven (see labels.py). Raises DataError for the record, TemplateError for the template."""
        where = str(conversation.origin)
        self._check_trainable(conversation, where)
        rendered = self._rendered(conversation, where)
        loaded = self._inputs.load(conversation)
        sizes = self._inputs.sizes_of(loaded)
        self._expansion.check_places(rendered.marked.clean, sizes, where)
        outputs, heard = self._process(rendered.marked_text, loaded, where)
        self._expansion.check(heard, rendered.marked.clean, sizes, where)
        if set(heard.marked.spans) != set(rendered.marked.spans):
            raise TemplateError("the processor takes away or repeats an answer", where=where, fix="use the model's own processor")
        trained = target_tokens(heard, rendered.slots, self._facts.turns, self._tap, where)
        return self._example(conversation, outputs, heard, trained)

    def length(self, conversation: Conversation) -> Length:
        """The exact cost, from the media's headers alone."""
        where = str(conversation.origin)
        text = self._shielded(conversation, where)
        sizes = self._inputs.sizes(conversation)
        return Length(tokens=self._expansion.count(text, sizes, where), kinds=frozenset(size.kind for size in sizes))

    def prompt(self, conversation: Conversation) -> dict[str, Tensor]:
        """Inputs for generating the last assistant turn: token-aligned ones [1, T], and media; no attention mask, no labels.

        The text is all messages before that turn with the template's generation prompt. A template without one is asked with
        the training text up to the first trained token.
        """
        where = str(conversation.origin)
        turn = max((i for i, message in enumerate(conversation.messages) if message.role == "assistant"), default=None)
        before = conversation.messages[:turn]
        if not self._facts.cut_prompt:
            asked = Conversation(messages=before, origin=conversation.origin)
            outputs, heard = self._process(self._shielded(asked, where, generation=True), self._inputs.load(asked), where)
            tokens, media = self._split(outputs, heard)
            return {name: value[None] for name, value in tokens.items()} | media
        answer = Message(role="assistant", parts=(Text(text="answer"),))
        history = tuple(Message(role=message.role, parts=message.parts, train=False) for message in before)
        whole = self(Conversation(messages=(*history, answer), origin=conversation.origin))
        first = int((whole.labels != IGNORED).nonzero()[0])
        tokens = {"input_ids": whole.input_ids, **whole.token_inputs}
        return {name: value[None, :first] for name, value in tokens.items()} | whole.media

    def dummy(self, kinds: frozenset[str]) -> Example:
        """The smallest example with one blank medium of each kind and no label."""
        missing = sorted(set(kinds) - set(self._facts.placeholders))
        if missing:
            raise ModelError(f"the processor takes no {', '.join(missing)}", where="processor", fix="use a model for it")
        sizes = [self._expansion.smallest(kind) for kind in KINDS if kind in kinds]
        media = tuple(BLANK_PARTS[size.kind] for size in sizes)
        text = self._shielded(Conversation(messages=(Message(role="user", parts=(*media, Text(text="."))),)), "dummy")
        outputs, heard = self._process(text, self._inputs.blank(sizes), "dummy")
        return self._example(Conversation(messages=()), outputs, heard, [False] * len(heard.ids), kinds=frozenset(kinds))

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Text of generated ids, special tokens left out."""
        return self._tap.tokenizer.decode(ids, skip_special_tokens=True)

    def text(self, ids: Sequence[int] | Tensor) -> str:
        """Exact text of ids, special tokens included."""
        return self._tap.decode([int(token) for token in ids])

    def tokens(self, ids: Sequence[int] | Tensor) -> list[str]:
        """Each token's text by itself, special tokens included."""
        return [self.text([token]) for token in ids]

    def count(self, text: str) -> int:
        """Tokens of a text by itself, as an answer's is."""
        return len(self._tap.ids_of(text))

    @property
    def pad_id(self) -> int:
        """The token that fills rows; never seen by the model."""
        tokenizer = self._tap.tokenizer
        return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer: generation stops at each."""
        return self._facts.turns.end_ids

    @property
    def kinds(self) -> frozenset[str]:
        """The media kinds that processor and template both take."""
        return frozenset(self._facts.placeholders)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found out about the template that a user should know."""
        return (*self._facts.notes, *([self._not_lean] if self._not_lean else []))

    def fingerprint(self) -> str:
        """Changes with anything that changes encodings: processor settings, vocabulary, template, the rules of what is opened."""
        processor, _, rules, _ = self._made_from
        seen = {
            "version": _VERSION,
            "processor": json.loads(processor.to_json_string()),
            "parts": {name: part.to_dict() for name, part in sorted(vars(processor).items()) if name in _PARTS},
            "tokenizer": hashlib.sha256(processor.tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            "special": processor.tokenizer.special_tokens_map,
            "template": self._render.template,
            "media": rules.model_dump(exclude=_FETCHING),
        }
        if self.pixel_form is not None:
            seen["lean"] = LEAN_VERSION
        return hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()

    def _check_trainable(self, conversation: Conversation, where: str) -> None:
        trained = [message for message in conversation.messages if message.trained]
        if not trained:
            raise DataError("no turn of the conversation is trained", reason="no_trained_turn", where=where, fix="add an assistant turn")
        if any(not message.text.strip() for message in trained):
            raise DataError("an answer is empty", reason="empty_answer", where=where, fix="write the answer, or remove the record")

    def _rendered(self, conversation: Conversation, where: str) -> _Rendered:
        """The conversation with marks, in the first way of marking that is proven right."""
        slots = slots_of(conversation)
        marks.check_unmarked([slot.text for slot in slots], where)
        hidden = [self._shield.hide(slot.text) for slot in slots]
        plain = self._render(self._chat(conversation), where=where)
        problem: Exception | None = None
        for placement, only_trained in _WAYS:
            texts = wrap(slots, hidden, placement, only_trained=only_trained)
            try:
                text = self._render(self._chat(conversation, texts), where=where)
                marked = marks.take_out(text)
                check_rendering(marked, plain, slots, placement, only_trained=only_trained)
            except (Unproven, FoveateError) as error:
                problem = problem or error
                continue
            return _Rendered(marked_text=text, marked=marked, slots=slots)
        raise TemplateError(
            f"labels can't be proven: {problem}",
            where=where,
            fix="set `train: false` on that turn, or use a template that renders every turn as it is (`model.chat_template`)",
        )

    def _shielded(self, conversation: Conversation, where: str, *, generation: bool = False) -> str:
        """The conversation as rendered for the processor, without marks."""
        texts = [slot.text for slot in slots_of(conversation)]
        marks.check_unmarked(texts, where)
        return self._render(self._chat(conversation, [self._shield.hide(text) for text in texts]), where=where, generation=generation)

    def _chat(self, conversation: Conversation, texts: Sequence[str] | None = None) -> list[dict[str, Any]]:
        return to_chat(conversation, form=self._facts.form, texts=texts, placeholders=self._facts.placeholders)

    def _process(self, text: str, loaded: dict[str, Any], where: str) -> tuple[BatchFeature, Heard]:
        """The processor's outputs, and what its tokenizer was given. Raises DataError where the processor refuses."""
        options = tokenizer_options(self._tap, text)
        try:
            with self._tap.listen() as heard:
                outputs = self._tap.processor(text=[text], return_tensors="pt", **options, **loaded)
        except DataError as error:
            raise DataError(error.problem, reason=error.reason, where=where, fix=error.fix) from error
        except REFUSALS as error:
            raise DataError(
                f"the processor refuses the record: {error}", reason="processor_refused", where=where, fix="change or remove the record"
            ) from error
        if len(heard) != 1 or outputs["input_ids"][0].tolist() != heard[0].ids:
            raise ModelError(
                f"{type(self._made_from[0]).__name__} does not hand its tokenizer one text and use its ids as they are",
                where="processor",
                fix="make the batches by `data.collate`",
            )
        return outputs, heard[0]

    def _split(self, outputs: BatchFeature, heard: Heard) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(token-aligned outputs [T], media outputs as they are)."""
        tokens, media = {}, {}
        for name, value in outputs.items():
            if name in _DROPPED:
                continue
            tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
            if name in heard.names or name in _TOKEN_NAMES:
                if tensor.shape != (1, len(heard.ids)):
                    shapes = f"{list(tensor.shape)}, not [1, {len(heard.ids)}]"
                    raise ModelError(f"its {name} has the shape {shapes}", where="processor", fix="make the batches by `data.collate`")
                tokens[name] = tensor[0]
            else:
                media[name] = tensor
        return tokens, media

    def _example(self, conversation: Conversation, outputs: BatchFeature, heard: Heard, trained: Sequence[bool], kinds=None) -> Example:
        tokens, media = self._split(outputs, heard)
        ids = tokens.pop("input_ids")
        positions = None
        if self._positions is not None:
            positions = self._positions({"input_ids": ids[None]} | {name: value[None] for name, value in tokens.items()} | media)
        return Example(
            input_ids=ids,
            labels=torch.where(torch.tensor(trained, dtype=torch.bool), ids, IGNORED),
            position_ids=positions,
            token_inputs=tokens,
            media=media,
            kinds=kinds if kinds is not None else frozenset(kind_of(part) for part in conversation.media),
            origin=conversation.origin,
        )


def _rebuild(processor: ProcessorMixin, positions: Positions | None, rules: MediaSection, lean: bool) -> Encoder:
    return Encoder(processor, positions=positions, rules=rules, lean=lean)
