"""Listens to what a processor hands its tokenizer: the text with every medium already expanded, whatever the family.

The tokenizer sees the text without marks (see marks.py), so its ids are those of the plain conversation; the marks' places are
kept. Control tokens that a user wrote as text are encoded as ordinary characters.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foveate.encode import marks
from foveate.encode.splice import Places, Splicer
from foveate.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import ProcessorMixin


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One text that the tokenizer was given.

    `marked.clean` still holds shielded characters; `text` is what it stands for, of the same length, so that `offsets`
    (begin, end of each of T tokens) are places in both. `names` are the token-aligned outputs, `options` the keyword arguments
    that the processor chose.
    """

    marked: marks.Marked
    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]
    names: frozenset[str]
    options: dict[str, Any]


class Enough(Exception):
    """Ends a processor's call once the text is known; raised by the tokenizer, caught by `Tap.text_of`."""


class Tap:
    """A processor whose tokenizer is listened to. The processor that was given stays as it was."""

    def __init__(self, processor: ProcessorMixin) -> None:
        if not processor.tokenizer.is_fast:
            raise ModelError(
                f"{type(processor.tokenizer).__name__} can't say which characters a token covers, so labels can't be proven",
                where="tokenizer",
                fix="use a model with a fast tokenizer (tokenizer.json)",
            )
        self.tokenizer = copy.copy(processor.tokenizer)
        self.tokenizer.__class__ = type("Tapped", (_Listening, type(processor.tokenizer)), {})
        self.tokenizer.foveate_heard = None
        self.tokenizer.foveate_stops = False
        self.tokenizer.foveate_control = frozenset()
        added = self.tokenizer.added_tokens_decoder
        self.special_ids = frozenset(token for token, entry in added.items() if entry.special)
        self.special = {str(entry): token for token, entry in added.items() if entry.special}
        # Special tokens that are cut out of any text as they are written, whatever stands beside them.
        whole = {token: entry for token, entry in added.items() if entry.special and str(entry)}
        self.steady = {
            token: str(entry)
            for token, entry in whole.items()
            if not (entry.lstrip or entry.rstrip or entry.single_word or entry.normalized)
        }
        self.tokenizer.foveate_splicer = Splicer(self.steady, [str(entry) for entry in added.values()])
        self.tokenizer.foveate_special = self.special_ids
        self._ids_of: dict[str, list[int]] = {}
        backend = self.tokenizer.backend_tokenizer
        self._settings = backend.padding, backend.truncation
        self.processor = copy.copy(processor)
        self.processor.tokenizer = self.tokenizer

    def forbid(self, ids: frozenset[int]) -> None:
        """`ids` are control tokens that shielded text must never become."""
        self.tokenizer.foveate_control = ids

    @contextmanager
    def listen(self) -> Iterator[list[Heard]]:
        """The texts tokenized inside the block."""
        self.tokenizer.foveate_heard = heard = []
        try:
            yield heard
        finally:
            self.tokenizer.foveate_heard = None
            self._restore()

    def _restore(self) -> None:
        """What a processor had the tokenizer pad and cut stays set in its core, and would be saved with the model."""
        backend, (padding, truncation) = self.tokenizer.backend_tokenizer, self._settings
        if backend.padding != padding:
            backend.no_padding() if padding is None else backend.enable_padding(**padding)
        if backend.truncation != truncation:
            backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)

    def text_of(self, text: str, arguments: dict[str, Any]) -> str:
        """What the processor, called with `text` and `arguments`, hands its tokenizer; that is as far as it gets."""
        self.tokenizer.foveate_stops = True
        try:
            with self.listen() as heard, suppress(Enough):
                self.processor(text=[text], return_tensors="pt", **arguments)
        finally:
            self.tokenizer.foveate_stops = False
        return heard[0].marked.clean

    def tokenize(self, text: str, options: dict[str, Any]) -> Heard:
        """Tokenizes already expanded text, which may be marked and shielded."""
        with self.listen() as heard:
            self.tokenizer([text], **options)
        return heard[0]

    def ids_of(self, text: str) -> list[int]:
        """Ids of a piece of text by itself; short ones, which repeat from turn to turn, are remembered."""
        found = self._ids_of.get(text)
        if found is None:
            found = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(text) < 200 and len(self._ids_of) < 10_000:
                self._ids_of[text] = found
        return found

    def decode(self, ids: list[int]) -> str:
        """Exact text of token ids, special tokens included."""
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def normal(self, text: str) -> str:
        """Text as the tokenizer's own normalizer (NFC and the like) makes it, white space left out, for comparing."""
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        normal = text if normalizer is None else normalizer.normalize_str(text)
        return "".join(normal.replace("\u2581", " ").split())  # U+2581 stands for a space in SentencePiece


class _Listening:
    """Mixed into the tokenizer's own class."""

    def __call__(self, text: str | list[str] | None = None, *args: Any, **options: Any) -> Any:
        if self.foveate_heard is None or text is None:
            return super().__call__(text, *args, **options)
        single = isinstance(text, str)
        marked = [marks.take_out(one) for one in ([text] if single else text)]
        if self.foveate_stops:
            kept = {"ids": [], "offsets": [], "names": frozenset(), "options": options}
            self.foveate_heard += [Heard(marked=one, text=marks.unshield(one.clean), **kept) for one in marked]
            raise Enough
        # Tensors are made at the end: of thousands of offsets, which nobody asked for, they cost more than the tokenizing.
        wanted = {**options, "return_offsets_mapping": True, "return_tensors": None}
        tensors, clean = options.get("return_tensors"), [one.clean for one in marked]
        flat = single and tensors is None
        data, encodings = self._tokenized(clean, flat, args, wanted)
        if any(marks.has_shields(one) for one in clean):
            data = self._shielded(data, clean, flat)
        offsets = data["offset_mapping"]
        if not options.get("return_offsets_mapping"):
            del data["offset_mapping"]
        for i, one in enumerate(marked):
            ids, places = (data["input_ids"], offsets) if flat else (data["input_ids"][i], offsets[i])
            self.foveate_heard.append(
                Heard(
                    marked=one,
                    text=marks.unshield(one.clean),
                    ids=list(ids),
                    offsets=list(places),
                    names=frozenset(data) - {"offset_mapping"},
                    options={name: value for name, value in options.items() if name != "return_tensors"},
                )
            )
        from transformers import BatchEncoding

        # Some processors ask the encoding where a medium's tokens are; those are the same before and after shielding.
        return BatchEncoding(data, encoding=encodings, tensor_type=tensors)

    def _tokenized(self, clean: list[str], flat: bool, args: tuple[Any, ...], wanted: dict[str, Any]) -> tuple[dict[str, list], Any]:
        """What the tokenizer makes of the texts, and its record of them; runs of one special token are spliced in."""
        splicer = self.foveate_splicer
        short, runs = splicer.shorten(clean[0])
        # Several texts, cutting and filling up look at the whole length.
        plain = len(clean) == 1 and not args and not wanted.get("truncation") and wanted.get("padding") in (None, False, True, "longest")
        spliced: dict[str, list] | None = None
        if runs and plain:
            row = dict(super().__call__(short, **wanted))
            spliced = splicer.lengthen(row, runs) if all(len(values) == len(row["input_ids"]) for values in row.values()) else None
            if spliced is not None and splicer.proven(runs):
                places = [Places(spliced["offset_mapping"])]
                return spliced if flat else {name: [values] for name, values in spliced.items()}, places
        encoding = super().__call__(clean[0] if flat else clean, *args, **wanted)
        data = dict(encoding)
        whole = data if flat else {name: values[0] for name, values in data.items()} if plain else None
        if runs and plain:
            splicer.prove(runs, spliced, whole)
        for ids in [data["input_ids"]] if flat else data["input_ids"]:
            splicer.learn(ids)
        return data, encoding.encodings

    def _shielded(self, data: dict[str, list], texts: list[str], flat: bool) -> dict[str, list]:
        rows = []
        for i, text in enumerate(texts):
            row = {name: values if flat else values[i] for name, values in data.items()}
            rows.append(self._as_written(text, row) if marks.has_shields(text) else row)
        return rows[0] if flat else {name: [row[name] for row in rows] for name in rows[0]}

    def _as_written(self, text: str, row: dict[str, list]) -> dict[str, list]:
        """`row` with the stretches around shielded characters encoded anew from the real text, as ordinary characters.

        A tokenizer works on each stretch between two special tokens by itself; that is checked before it is relied on.
        """
        offsets, ids = row["offset_mapping"], row["input_ids"]
        walls = [i for i, token in enumerate(ids) if token in self.foveate_special and offsets[i][0] < offsets[i][1]]
        lefts = [(-1, 0), *((i, offsets[i][1]) for i in walls)]
        rights = [*((i, offsets[i][0]) for i in walls), (len(ids), len(text))]
        out: dict[str, list] = {name: [] for name in row}
        for (left, begin), (right, end) in zip(lefts, rights, strict=True):
            stretch = {name: values[left + 1 : right] for name, values in row.items()}
            if marks.has_shields(text[begin:end]):
                stretch = self._as_characters(text, begin, end, stretch)
            for name, values in stretch.items():
                out[name] += values + row[name][right : right + 1]
        return out

    def _as_characters(self, text: str, begin: int, end: int, stretch: dict[str, list]) -> dict[str, list]:
        piece = text[begin:end]
        alone = super().__call__(piece, add_special_tokens=False)["input_ids"]
        real = super().__call__(marks.unshield(piece), add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        # Tokens that the tokenizer adds by itself at either end have no width; they stay.
        wide = [i for i, (a, b) in enumerate(stretch["offset_mapping"]) if a < b]
        head, tail = wide[0], wide[-1] + 1
        if alone != stretch["input_ids"][head:tail] or self.foveate_control & set(real["input_ids"]):
            raise DataError(
                f"the text holds {', '.join(marks.shielded_words(piece))}, which this tokenizer can't write as plain characters",
                reason="special_in_text",
                fix="remove it from the record's text",
            )
        moved = {"input_ids": list(real["input_ids"]), "offset_mapping": [(a + begin, b + begin) for a, b in real["offset_mapping"]]}
        count = len(real["input_ids"])
        return {name: values[:head] + moved.get(name, [values[head]] * count) + values[tail:] for name, values in stretch.items()}

