"""`batch:` what one optimizer step is made of."""

from __future__ import annotations

from pydantic import Field

from foveate.config.base import Section


class BatchSection(Section):
    """`size` conversations make an optimizer step, whatever the number of ranks and micro-batches."""

    size: int = Field(16, gt=0, description="Conversations per optimizer step, over all ranks.")
    max_tokens: int = Field(4096, gt=0, description="Most tokens in one micro-batch; a longer conversation is quarantined, never cut.")
    pack: bool = Field(True, description="Put conversations end to end in one row instead of padding them; families that can't are padded.")
    micro_size: int | None = Field(None, gt=0, description="Most conversations in one micro-batch; no limit but max_tokens when unset.")
