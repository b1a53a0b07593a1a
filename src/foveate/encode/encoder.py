"""Conversation -> Example, for every processor that follows the Hugging Face contract. No branch knows a family.

Outputs that go along the tokens, [1, T] or [1, T, ...], lose their first axis; every other output is media's, and stays as the
processor gives it for one conversation. Along which axis those of several conversations are joined is the family's row
(`batched_media`, `long_media`, `media_rows`), and batching/collate.py does it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveate.config.media import KEEPING, MediaSection
from foveate.data.store import Counts
from foveate.encode.chat import to_chat
from foveate.encode.expand import Expansion
from foveate.encode.lean import VERSION as LEAN_VERSION
from foveate.encode.lean import PixelForm, lean_images
from foveate.encode.media import MediaInputs
from foveate.encode.probe import KINDS, REFUSALS, find_facts, tokenizer_options
from foveate.encode.prove import Prover, Rendered
from foveate.encode.render import Renderer
from foveate.encode.talk import BLANK_PARTS
from foveate.encode.tap import Heard, Tap
from foveate.encode.targets import target_tokens
from foveate.errors import DataError, ModelError, TemplateError
from foveate.types import Conversation, Example, Length, Message, Text, kind_of

if TYPE_CHECKING:
    from transformers import BatchFeature, ProcessorMixin

Positions = Callable[[dict[str, Tensor]], Tensor]
IGNORED = -100
_VERSION = 3  # raise when the same conversation would encode differently: checkpoints then refuse to mix
# Outputs that are not inputs of a model, or that batching makes anew.
_DROPPED = frozenset(
    "attention_mask labels offset_mapping assistant_masks text_replacement_offsets special_tokens_mask video_metadata".split()
)
# Outputs that go along the ids, [1, T] or [1, T, ...]. The last say which images a token looks at, in families with cross attention.
_TOKEN_NAMES = frozenset({"input_ids", "token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids", "cross_attention_mask"})
_PARTS = frozenset({"image_processor", "video_processor", "feature_extractor", "audio_processor"})
_RULES = MediaSection()


class Encoder:
    """Encodes conversations with one processor. Picklable; holds no weights.

    With `lean`, and where the processor allows it, `pixel_values` are bytes, and `pixel_form` says what they stand for (else None).

    `options` are variables of the chat template, such as `enable_thinking`, in training and generation alike. With `one_answer`, as models
    with a decoder of their own need it, a conversation that trains several answers is refused. `patch` is the side, in pixels, of the
    tower's patches where it is given whole pictures: for the patches of lengths alone.

    Raises TemplateError on construction if nothing could be trained with the processor's chat template.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        *,
        positions: Positions | None = None,
        rules: MediaSection = _RULES,
        lean: bool = False,
        options: Mapping[str, Any] | None = None,
        one_answer: bool = False,
        patch: int = 14,
    ) -> None:
        self._made_from = (processor, positions, rules, lean, options, one_answer, patch)
        self._one_answer = one_answer
        self._tap = Tap(processor)
        if positions is not None and "mm_token_type_ids" in processor.model_input_names:  # some leave it to the caller to ask for them
            self._tap.processor.return_mm_token_type_ids = True
        images, self._not_lean = lean_images(processor) if lean else (None, "")
        self.pixel_form: PixelForm | None = None
        if images is not None:
            self._tap.processor.image_processor, self.pixel_form = images, images.form
        self._render = Renderer(processor, options=options)
        self._positions = positions
        self._inputs = MediaInputs(processor, rules=rules, arrays=images is not None)
        self._facts = find_facts(self._tap, self._render, self._inputs)
        self._prover = Prover(self._render, self._facts, self._tap.special)
        self._tap.forbid(frozenset(self._tap.special[word] for word in self._facts.control if word in self._tap.special))
        self._expansion = Expansion(self._tap, self._inputs, self._facts, patch=patch)

    def __reduce__(self) -> tuple[Callable[..., Encoder], tuple[Any, ...]]:
        return _rebuild, self._made_from

    def __call__(self, conversation: Conversation) -> Example:
        """Encode, with every label proven (see labels.py). Raises DataError for the record, TemplateError for the template."""
        return self._encoded(conversation, self._inputs.load)

    def outline(self, conversation: Conversation) -> Example:
        """The same with media of which only the headers are read: the content of its `media` is blank, or on torch's meta device."""
        return self._encoded(conversation, self._inputs.outline)

    def _encoded(self, conversation: Conversation, load: Callable[[Conversation], dict[str, Any]]) -> Example:
        where = str(conversation.origin)
        self._check_trainable(conversation, where)
        rendered = self._prover.rendered(conversation, where)
        loaded = load(conversation)
        sizes = self._inputs.sizes_of(loaded)
        self._expansion.check_places(rendered.marked.clean, sizes, where)
        outputs, heard = self._process(rendered.marked_text, loaded, where)
        self._expansion.check(heard, rendered.marked.clean, sizes, where)
        return self._example(conversation, outputs, heard, self._weights(conversation, rendered, heard, where))

    def words(self, conversation: Conversation) -> Example | None:
        """Ids, labels and weights alone, of the media only the headers read and the processor not asked; None where that can't be exact."""
        where = str(conversation.origin)
        self._check_trainable(conversation, where)
        rendered = self._prover.rendered(conversation, where)
        heard = self._expansion.tokenized(rendered.marked_text, self._inputs.sizes(conversation), where)
        if heard is None:
            return None
        weights = self._weights(conversation, rendered, heard, where)
        return _weighted(torch.tensor(heard.ids), weights, conversation)

    def _weights(self, conversation: Conversation, rendered: Rendered, heard: Heard, where: str) -> list[float]:
        """What each token counts, 0 where it is not trained."""
        if set(heard.marked.spans) != set(rendered.marked.spans):
            raise TemplateError("the processor takes away or repeats an answer", where=where, fix="use the model's own processor")
        weights = [0.0] * len(heard.ids)
        for message, tokens in target_tokens(heard, rendered.proven, self._facts.turns, self._tap, where):
            weights[tokens.start : tokens.stop] = [conversation.messages[message].weight] * len(tokens)
        return weights

    @contextmanager
    def ahead(self, conversations: Sequence[Conversation], *, encoded: bool = True) -> Iterator[None]:
        """Inside the block these conversations' lengths cost less, and with `encoded` their encodings: they are rendered together."""
        self._prover.ahead(conversations, marked=encoded)
        try:
            yield
        finally:
            self._prover.ahead((), marked=False)

    def length(self, conversation: Conversation) -> Length:
        """The exact cost, from the media's headers alone. Raises DataError where training would for the conversation's layout."""
        where = str(conversation.origin)
        self._check_one_answer(conversation, where)
        text = self._prover.shielded(conversation, where)
        sizes = self._inputs.sizes(conversation)
        return self._expansion.length(text, sizes, where)

    def prompt(self, conversation: Conversation) -> Example:
        """What the last assistant turn is generated from: no label, and no position ids, which the model's `generate` makes itself.

        The text is all messages before that turn with the template's generation prompt. A template without one is asked with
        the training text up to the first trained token.
        """
        where = str(conversation.origin)
        turn = max((i for i, message in enumerate(conversation.messages) if message.role == "assistant"), default=None)
        before = conversation.messages[:turn]
        if not self._facts.cut_prompt:
            asked = Conversation(messages=before, origin=conversation.origin, tools=conversation.tools)
            outputs, heard = self._process(self._prover.shielded(asked, where, generation=True), self._inputs.load(asked), where)
            tokens, media = self._split(outputs, heard)
            return _unlabelled(tokens.pop("input_ids"), tokens, media, asked)
        answer = Message(role="assistant", parts=(Text(text="answer"),))
        history = tuple(replace(message, train=False) for message in before)
        whole = self(replace(conversation, messages=(*history, answer)))
        first = int((whole.labels != IGNORED).nonzero()[0])
        tokens = {name: value[:first] for name, value in whole.token_inputs.items()}
        return _unlabelled(whole.input_ids[:first], tokens, whole.media, conversation)

    def dummy(self, kinds: frozenset[str]) -> Example:
        """The smallest example with one blank medium of each kind and no label."""
        missing = sorted(set(kinds) - set(self._facts.placeholders))
        if missing:
            raise ModelError(f"the processor takes no {', '.join(missing)}", where="processor", fix="use a model for it")
        sizes = [self._expansion.smallest(kind) for kind in KINDS if kind in kinds]
        media = tuple(BLANK_PARTS[size.kind] for size in sizes)
        text = self._prover.shielded(Conversation(messages=(Message(role="user", parts=(*media, Text(text="."))),)), "dummy")
        outputs, heard = self._process(text, self._inputs.blank(sizes), "dummy")
        return self._example(Conversation(messages=()), outputs, heard, [0.0] * len(heard.ids), kinds=frozenset(kinds))

    def chat(self, conversation: Conversation) -> list[dict[str, Any]]:
        """The conversation as this chat template takes it; media as bare parts, or as the text that stands for them."""
        facts = self._facts
        arguments = facts.habits.arguments or "object"
        return to_chat(conversation, form=facts.form, placeholders=facts.placeholders, arguments=arguments).messages

    def written(self, conversation: Conversation) -> str:
        """What the model is to write in the last assistant turn, calls of tools included, as `decode` gives it."""
        *history, last = conversation.messages
        whole = self(replace(conversation, messages=(*(replace(message, train=False) for message in history), replace(last, train=True))))
        return self.decode(whole.input_ids[whole.labels != IGNORED]).strip()

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
    def rate_hz(self) -> int:
        """Samples a second of the sounds that the processor takes."""
        return self._inputs.rate_hz

    @property
    def kinds(self) -> frozenset[str]:
        """The media kinds that processor and template both take."""
        return frozenset(self._facts.placeholders)

    @property
    def decoded(self) -> Counts | None:
        """What this process found among decoded media and what it added to them; None where none are kept."""
        return self._inputs.kept.counts if self._inputs.kept is not None else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found out about the template that a user should know."""
        return (*self._facts.notes, *([self._not_lean] if self._not_lean else []))

    def fingerprint(self, *, media_only: bool = False) -> str:
        """Changes with anything that changes encodings: processor settings, vocabulary, template, the rules of what is opened.

        With `media_only`, with what changes those of media alone.
        """
        processor, _, rules, _, options, *_ = self._made_from
        seen = {
            "version": _VERSION,
            "processor": json.loads(processor.to_json_string()),
            "parts": {name: part.to_dict() for name, part in sorted(vars(processor).items()) if name in _PARTS},
            "media": rules.model_dump(exclude=KEEPING),
        }
        if not media_only:
            seen["tokenizer"] = hashlib.sha256(processor.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
            seen["special"] = processor.tokenizer.special_tokens_map
            seen["template"] = self._render.template
        if options and not media_only:
            seen["options"] = options
        if self.pixel_form is not None:
            seen["lean"] = LEAN_VERSION
        return hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()

    def _check_trainable(self, conversation: Conversation, where: str) -> None:
        trained = [message for message in conversation.messages if message.trained]
        if not trained:
            raise DataError("no turn of the conversation is trained", reason="no_trained_turn", where=where, fix="add an assistant turn")
        if not all(message.says for message in trained):
            raise DataError("an answer is empty", reason="empty_answer", where=where, fix="write the answer, or remove the record")
        self._check_one_answer(conversation, where)

    def _check_one_answer(self, conversation: Conversation, where: str) -> None:
        if self._one_answer and sum(message.trained for message in conversation.messages) > 1:
            raise DataError(
                "a model with a decoder of its own writes one answer, the record has several",
                reason="one_answer",
                where=where,
                fix="set `train: false` on all assistant turns but the last",
            )

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
            if tensor.is_floating_point():
                tensor = tensor.float()  # Llama 4's processor gives bfloat16, whatever the weights are
            if name in heard.names or name in _TOKEN_NAMES:
                if tensor.shape[:2] != (1, len(heard.ids)):
                    shapes = f"{list(tensor.shape)}, not [1, {len(heard.ids)}]"
                    raise ModelError(f"its {name} has the shape {shapes}", where="processor", fix="make the batches by `data.collate`")
                tokens[name] = tensor[0]
            else:
                media[name] = tensor
        return tokens, media

    def _example(self, conversation: Conversation, outputs: BatchFeature, heard: Heard, weights: Sequence[float], kinds=None) -> Example:
        tokens, media = self._split(outputs, heard)
        ids = tokens.pop("input_ids")
        positions = None
        if self._positions is not None:
            positions = self._positions({"input_ids": ids[None]} | {name: value[None] for name, value in tokens.items()} | media)
        made = _weighted(ids, weights, conversation)
        return replace(made, position_ids=positions, token_inputs=tokens, media=media, kinds=made.kinds if kinds is None else kinds)


def _weighted(ids: Tensor, weights: Sequence[float], conversation: Conversation) -> Example:
    """Ids [T] with the labels that follow from their weights."""
    return Example(
        input_ids=ids,
        labels=torch.where(torch.tensor([weight > 0 for weight in weights]), ids, IGNORED),
        weights=torch.tensor(weights) if set(weights) - {0.0, 1.0} else None,
        kinds=frozenset(kind_of(part) for part in conversation.media),
        origin=conversation.origin,
    )


def _unlabelled(ids: Tensor, tokens: dict[str, Tensor], media: dict[str, Tensor], conversation: Conversation) -> Example:
    return Example(
        input_ids=ids,
        labels=torch.full_like(ids, IGNORED),
        token_inputs=tokens,
        media=media,
        kinds=frozenset(kind_of(part) for part in conversation.media),
        origin=conversation.origin,
    )


def _rebuild(
    processor: ProcessorMixin,
    positions: Positions | None,
    rules: MediaSection,
    lean: bool,
    options: Mapping[str, Any] | None,
    one_answer: bool,
    patch: int,
) -> Encoder:
    return Encoder(processor, positions=positions, rules=rules, lean=lean, options=options, one_answer=one_answer, patch=patch)
