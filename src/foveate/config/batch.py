"""`batch:` what one optimizer step is made of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from pydantic import Field

from foveate.config.base import Section


class BatchSection(Section):
    """`size` conversations, or `rows` full rows, make an optimizer step, whatever the number of ranks and micro-batches."""

    replaced: ClassVar[Mapping[str, str]] = MappingProxyType({"size": "rows"})
    size: int = Field(16, gt=0, description="Conversations per optimizer step, over all ranks.")
    rows: int | None = Field(
        None,
        gt=0,
        description="In place of `size`: full rows (micro-batches) per optimizer step, over all ranks, packed ahead from all records' "
        "lengths. Each conversation still is in one row an epoch.",
    )
    max_tokens: int = Field(4096, gt=0, description="Most tokens in one micro-batch; a longer conversation is quarantined, never cut.")
    max_patches: int | None = Field(
        None,
        gt=0,
        description="Most that the vision and audio towers compute in one micro-batch, beside `max_tokens`: patches of images and clips as "
        "the tower sees them, frames of sounds. A conversation with more is quarantined.",
    )
    pack: bool = Field(True, description="Put conversations end to end in one row instead of padding them; families that can't are padded.")
    micro_size: int | None = Field(None, gt=0, description="Most conversations in one micro-batch; no limit but max_tokens when unset.")
    share_media: bool | Literal["regroup"] = Field(
        True,
        description="Packed conversations of one step about the same media encode them once, and what stands before them; losses and "
        "gradients stay those of separate conversations. `regroup` also changes the order of training, so that conversations about the "
        "same media come together.",
    )

    @property
    def planned_ahead(self) -> bool:
        """Whether steps follow from what all records are, so that each must be looked at before training."""
        return self.rows is not None or self.share_media == "regroup"
