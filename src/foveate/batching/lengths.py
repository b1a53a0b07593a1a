"""The one rule on what can be trained on: the checks before a run, `foveate check` and the run itself ask it and no other.

Media tokens are never cut, so a conversation that is too long is not used at all.
"""

from __future__ import annotations

from foveate.config.media import MediaSection
from foveate.data.media import has_wrong_suffix
from foveate.data.mixture import Mixture
from foveate.data.scan import Verdict, check_media
from foveate.encode.encoder import Encoder
from foveate.errors import DataError
from foveate.types import Conversation, Length, Row


def require_fit(conversation: Conversation, length: Length, *, max_tokens: int, max_patches: int | None = None) -> None:
    """Raises DataError (too_long, too_many_patches) where a conversation exceeds a budget of a micro-batch."""
    if length.tokens > max_tokens:
        raise DataError(
            f"{length.tokens} tokens do not fit batch.max_tokens = {max_tokens}",
            reason="too_long",
            where=str(conversation.origin),
            fix="raise batch.max_tokens, or set max_pixels on the source to shrink its images",
        )
    if max_patches is not None and length.patches > max_patches:
        raise DataError(
            f"its media are {length.patches} patches (frames of sounds), which do not fit batch.max_patches = {max_patches}",
            reason="too_many_patches",
            where=str(conversation.origin),
            fix="raise batch.max_patches, or set max_pixels on the source to shrink its images",
        )


def judge(
    mixture: Mixture,
    index: int,
    *,
    encoder: Encoder | None,
    max_tokens: int,
    max_patches: int | None = None,
    rules: MediaSection,
    decode: bool,
    given: Row | None = None,
) -> Verdict:
    """Whether the record at a place of the mixture can be used: its layout, its media's headers, its length.

    Args:
        encoder: None where a collate function of the user's makes the batches: lengths are then unknown.
        decode: read every pixel and sample too, not only the headers.
        given: the record's row, where it has been read already.

    FoveateErrors that are no record's fault (a missing package, a template that can't be used) pass through.
    """
    origin, length, odd, fits = mixture.origin(index), None, 0, False
    try:
        conversation = mixture.conversation(index, given)
        if encoder is not None:  # reads the headers as well
            length = encoder.length(conversation)
            require_fit(conversation, length, max_tokens=max_tokens, max_patches=max_patches)
            fits = True
        if encoder is None or decode:
            odd = check_media(conversation, level="decode" if decode else "headers", rules=rules)
        else:
            odd = sum(has_wrong_suffix(medium) for medium in conversation.media)
    except DataError as error:
        return Verdict(index=index, origin=origin, error=error, length=length, fits=fits)
    return Verdict(index=index, origin=origin, conversation=conversation, length=length, fits=fits, wrong_suffix=odd)
