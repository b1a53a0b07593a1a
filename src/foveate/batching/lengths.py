"""The one rule on what fits: media tokens are never cut, so a conversation that is too long is not used at all."""

from __future__ import annotations

from foveate.errors import DataError
from foveate.types import Conversation, Length


def require_fit(conversation: Conversation, length: Length, *, max_tokens: int) -> None:
    """Raises DataError (too_long) where a conversation exceeds the budget of a micro-batch."""
    if length.tokens > max_tokens:
        raise DataError(
            f"{length.tokens} tokens do not fit batch.max_tokens = {max_tokens}",
            reason="too_long",
            where=str(conversation.origin),
            fix="raise batch.max_tokens, or set max_pixels on the source to shrink its images",
        )
