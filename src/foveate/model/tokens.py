"""Tokens that a recipe adds: in the tokenizer, and as rows of the embeddings and the head."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from foveate.config.model import ModelSection
from foveate.errors import ModelError
from foveate.model.parts import is_tied

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

_NOISE = 0.1  # of the spread of the rows that are there: new tokens start near the mean, and apart from each other


def added(section: ModelSection) -> list[str]:
    """The tokens that the recipe names, plain ones first."""
    return [*section.add_tokens, *section.add_special_tokens]


def add_tokens(processor: ProcessorMixin, section: ModelSection) -> tuple[str, ...]:
    """Put the recipe's new tokens into the processor's tokenizer; returns notes on those that are there already."""
    tokenizer, notes = processor.tokenizer, []
    known = tokenizer.get_vocab()
    there = [token for token in added(section) if token in known]
    if there:
        names = ", ".join(there)
        notes.append(f"the tokenizer has {names} already: {'its row is' if len(there) == 1 else 'their rows are'} trained, not made anew")
    tokenizer.add_tokens([token for token in section.add_tokens if token not in known])
    tokenizer.add_tokens([token for token in section.add_special_tokens if token not in known], special_tokens=True)
    return tuple(notes)


def token_ids(tokenizer: PreTrainedTokenizerBase, section: ModelSection) -> list[int]:
    """Ids of the tokens that the recipe names, in the order of their rows."""
    return sorted({tokenizer.convert_tokens_to_ids(token) for token in added(section)})
