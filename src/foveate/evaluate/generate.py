"""Answers by generation: greedy, in batches padded on the left, the same for every batch size up to rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate.batching.collate import join_media, token_rows
from foveate.batching.frames import as_images
from foveate.model.families import Family, family_of
from foveate.model.mend import with_lists
from foveate.model.pixels import as_weights
from foveate.types import Conversation, Example

if TYPE_CHECKING:
    from transformers import GenerationConfig

    from foveate.encode.encoder import Encoder


def generate_answers(
    model: nn.Module,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int,
    batch_size: int,
    device: torch.device | str,
    synced: bool = False,
) -> list[str]:
    """One answer for each conversation's last assistant turn, in the order given.

    Greedy search by the model's own `generate`, whatever sampling or penalties its generation config asks for, so that equal
    weights give equal answers. Similar lengths are batched together; training mode is restored module by module.

    Args:
        model: not wrapped in DDP; sharded by FSDP2 is fine.
        synced: keep generating until every rank is done, as sharded weights need. Every rank must then pass equally many
            conversations of each combination of media kinds, for all of them run the same towers in the same order.
    Raises:
        DataError: a conversation that can't be encoded.
    """
    lengths = [encoder.length(conversation) for conversation in conversations]
    alone = family_of(model.config).alone
    order = sorted(range(len(lengths)), key=lambda i: (sorted(lengths[i].kinds) if synced or alone else [], lengths[i].tokens, i))
    answers = [""] * len(conversations)
    config = greedy_config(model, encoder, max_new_tokens)
    batch_size = 1 if family_of(model.config).prompts_alone else batch_size
    # no_grad, not inference_mode: FSDP2 gathers parameters into storages that later steps train on.
    with evaluating(model), torch.no_grad():
        for chosen in _batches(order, [length.kinds for length in lengths], alone, batch_size):
            prompts = [encoder.prompt(conversations[i]) for i in chosen]
            batch = join_prompts(prompts, family_of(model.config), pad_id=config.pad_token_id)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            batch = with_lists(family_of(model.config).lists, batch)
            out = model.generate(**as_weights(model, batch), generation_config=config, synced_gpus=synced)
            begin = batch["input_ids"].shape[1] if family_of(model.config).decoder_start is None else 1
            for i, ids in zip(chosen, out[:, begin:], strict=True):
                answers[i] = encoder.decode(_until_end(ids, config.eos_token_id)).strip()
    return answers


def greedy_config(model: nn.Module, encoder: Encoder, max_new_tokens: int) -> GenerationConfig:
    """Plain greedy search that ends at the template's end-of-turn tokens and at the model's own."""
    from transformers import GenerationConfig

    own = model.generation_config.eos_token_id
    ends = encoder.end_ids | (set(own) if isinstance(own, list) else {own} - {None})
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        # Spelled out, because what is left open is taken from the model's own config (Qwen2.5-VL: repetition_penalty 1.05).
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        eos_token_id=sorted(ends),
        pad_token_id=encoder.pad_id,
    )


def join_prompts(prompts: Sequence[Example], family: Family, *, pad_id: int) -> dict[str, Tensor]:
    """Prompts [T] of several conversations -> one batch [B, longest], tokens padded on the left, media joined."""
    rows = [as_images(prompt) for prompt in prompts] if family.frames_are_images else prompts
    ids = [row.input_ids for row in rows]
    longest = max(len(row) for row in ids)
    # The answer follows a prompt's end; a decoder's begins anew, and the encoder's positions are counted from the left.
    pad = _pad_left if family.decoder_start is None else _pad_right
    batch = {
        "input_ids": torch.stack([pad(row, longest, pad_id) for row in ids]),
        "attention_mask": torch.stack([pad(torch.ones_like(row), longest, 0) for row in ids]),
    }
    for name in sorted({name for row in rows for name in row.token_inputs}):
        batch[name] = torch.stack([pad(along, longest, 0) for along in token_rows(rows, name)])
    return batch | join_media(rows, family)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each module has its own mode again (frozen towers stay in theirs)."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _batches(order: list[int], kinds: Sequence[frozenset[str]], alone: frozenset[str], size: int) -> Iterator[list[int]]:
    """Runs of `order` of at most `size`; where some kinds go alone, as in training, kinds are not mixed."""
    for _, run in groupby(order, key=lambda i: kinds[i] if alone else None):
        group = list(run)
        most = 1 if alone & kinds[group[0]] else size
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _pad_left(row: Tensor, length: int, value: int) -> Tensor:
    return functional.pad(row, (*(0, 0) * (row.ndim - 1), length - len(row), 0), value=value)


def _pad_right(row: Tensor, length: int, value: int) -> Tensor:
    return functional.pad(row, (*(0, 0) * (row.ndim - 1), 0, length - len(row)), value=value)


def _until_end(ids: Tensor, ends: Sequence[int]) -> list[int]:
    listed = ids.tolist()
    return listed[: next((i for i, token in enumerate(listed) if token in ends), len(listed))]
