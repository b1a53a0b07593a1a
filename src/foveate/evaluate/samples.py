"""An encoded conversation as the preview shows it: pictures, and tokens with what they are."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from foveate.config.media import MediaSection
from foveate.data.media import open_image
from foveate.encode.encoder import IGNORED
from foveate.evaluate.pixels import seen_by_model
from foveate.report.preview import Picture, Piece, PreviewSample
from foveate.types import Conversation, Example, Image

if TYPE_CHECKING:
    from PIL import Image as Pillow
    from transformers import PreTrainedTokenizerFast, ProcessorMixin

_LONGEST_CHARACTER = 4  # bytes of a character in UTF-8, so also tokens of a byte-level vocabulary
_BROKEN = "\N{REPLACEMENT CHARACTER}"


def preview_sample(
    conversation: Conversation, example: Example, processor: ProcessorMixin, *, split: str, rules: MediaSection
) -> PreviewSample:
    """What the model gets of a record. Pictures come from the pixels themselves where their shape is understood."""
    seen = seen_by_model(example.media, processor)
    pictures = [Picture(png=_png(item.picture), caption=item.caption) for item in seen]
    if not pictures:
        files = [part for part in conversation.media if isinstance(part, Image)]
        opened = [open_image(part, rules=rules) for part in files]
        pictures = [Picture(png=_png(picture), caption=f"{picture.width} × {picture.height}, before the processor") for picture in opened]
    return PreviewSample(
        origin=str(conversation.origin),
        split=split,
        pieces=tuple(pieces(example, processor.tokenizer)),
        tokens=len(example.input_ids),
        targets=int((example.labels != IGNORED).sum()),
        pictures=tuple(pictures),
    )


def pieces(example: Example, tokenizer: PreTrainedTokenizerFast) -> Iterator[Piece]:
    """The tokens in order: a medium's run of equal special tokens as one piece, tokens that share a character as one piece."""
    ids, trained = example.input_ids.tolist(), (example.labels != IGNORED).tolist()
    weights = trained if example.weights is None else example.weights.tolist()
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special} | set(tokenizer.all_special_ids)
    start = 0
    while start < len(ids):
        token = ids[start]
        if token in special:
            stop = next((i for i in range(start, len(ids)) if ids[i] != token or weights[i] != weights[start]), len(ids))
            kind = "media" if stop - start > 1 else "special"
        else:
            stop, kind = _whole_character(ids, weights, special, start, tokenizer), "text"
        text = tokenizer.convert_ids_to_tokens(token) if token in special else _text(ids[start:stop], tokenizer)
        yield Piece(text=text, trained=trained[start], kind=kind, count=stop - start, weight=float(weights[start] if trained[start] else 1))
        start = stop


def _whole_character(ids: list[int], weights: Sequence[float], special: set[int], start: int, tokenizer: PreTrainedTokenizerFast) -> int:
    """The end of the shortest run of tokens from `start` that decodes without a broken character; one token if there is none."""
    for stop in range(start + 1, min(start + _LONGEST_CHARACTER, len(ids)) + 1):
        if stop > start + 1 and (ids[stop - 1] in special or weights[stop - 1] != weights[start]):
            break
        if _BROKEN not in _text(ids[start:stop], tokenizer):
            return stop
    return start + 1


def _text(ids: list[int], tokenizer: PreTrainedTokenizerFast) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    # SentencePiece vocabularies lose the space before a word when it is decoded alone.
    lost = tokenizer.convert_ids_to_tokens(ids[0]).startswith("\N{LOWER ONE EIGHTH BLOCK}") and not text.startswith(" ")
    return " " + text if lost else text


def _png(picture: Pillow.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
