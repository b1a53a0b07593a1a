"""Tokens that a recipe adds: in the tokenizer, and as rows of the embeddings and the head."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from foveate.config.model import ModelSection
from foveate.errors import ModelError
from foveate.model.parts import is_tied

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

_NOISE = 0.1  # of the spread of the rows that are there: new tokens start near their mean, and apart from each other


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTokens:
    """What was added to a tokenizer."""

    ids: tuple[int, ...] = ()
    vocabulary: int = 0  # tokens that the tokenizer has now; the embeddings may have more rows
    notes: tuple[str, ...] = ()


def add_tokens(processor: ProcessorMixin, section: ModelSection) -> NewTokens:
    """Put the recipe's new tokens into the processor's tokenizer. What is there already is noted, and left as it is."""
    wanted = [*section.add_tokens, *section.add_special_tokens]
    if not wanted:
        return NewTokens()
    tokenizer = vars(processor).get("tokenizer", processor)  # beside data.collate it may be a tokenizer alone
    known = tokenizer.get_vocab()
    there = [token for token in wanted if token in known]
    tokenizer.add_tokens([token for token in section.add_tokens if token not in known])
    tokenizer.add_tokens([token for token in section.add_special_tokens if token not in known], special_tokens=True)
    ids = tuple(sorted(tokenizer.convert_tokens_to_ids(token) for token in wanted if token not in known))
    notes = [f"the tokenizer has {', '.join(there)} already: nothing is added for {'it' if len(there) == 1 else 'them'}"] if there else []
    if ids:
        notes.append(f"{len(ids)} tokens are new; their rows start at the mean of the others and are trained")
    return NewTokens(ids=ids, vocabulary=len(tokenizer), notes=tuple(notes))


def grow(model: PreTrainedModel, tokens: NewTokens, *, seed: int) -> None:
    """Give new tokens rows in embeddings and head: near the mean of the rows that are there, the same for every `seed`.

    Matrices that have a row for each id (many are padded) keep their size. Raises ModelError where there is no head to grow.
    """
    if not tokens.ids:
        return
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embeddings is None or head is None:
        raise ModelError("has no embeddings or no head that could take new tokens", where="model.add_tokens", fix="remove them")
    if tokens.vocabulary > min(embeddings.weight.shape[0], head.weight.shape[0]):
        model.resize_token_embeddings(tokens.vocabulary, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    weights = [model.get_input_embeddings().weight]
    if not is_tied(model):
        weights.append(model.get_output_embeddings().weight)
    with torch.no_grad():
        for weight in weights:
            _start(weight, tokens.ids, generator)


def _start(weight: nn.Parameter, ids: Sequence[int], generator: torch.Generator) -> None:
    """weight [rows, hidden]; all rows before the first new one are those whose mean is taken."""
    noise = torch.randn(len(ids), weight.shape[1], generator=generator)
    if weight.is_meta:
        return
    there = weight[: min(ids)].float()
    rows = there.mean(dim=0) + _NOISE * there.std(dim=0) * noise.to(weight.device)
    weight[list(ids)] = rows.to(weight.dtype)


def new_rows(model: nn.Module, ids: Sequence[int], *, whole: Collection[str], adapted: Collection[str]) -> dict[str, list[int]]:
    """The rows that are trained beside adapters, by module: those of new tokens, where the whole module is not trained anyway.

    Raises ModelError where the head has adapters of its own, over which PEFT can't train rows.
    """
    if not ids:
        return {}
    names = {module: name for name, module in model.named_modules()}
    embeddings, head = names[model.get_input_embeddings()], names[model.get_output_embeddings()]
    if head in adapted:
        fix = "take head out of tuning.parts, or train it in full: tuning.also_full: [head]"
        raise ModelError("the rows of new tokens can't be trained beside adapters on the head", where="model.add_tokens", fix=fix)
    _check_plain(model, embeddings, head)
    # PEFT makes the head follow the embeddings where they are one weight.
    modules = [embeddings] if is_tied(model) else [embeddings, head]
    return {name: list(ids) for name in modules if not any(name == done or name.startswith(f"{done}.") for done in whole)}


def _check_plain(model: nn.Module, embeddings: str, head: str) -> None:
    """PEFT computes such a layer itself, by its matrix and (as Gemma's) its scale: raises ModelError where there is more to it."""
    table, linear = model.get_submodule(embeddings), model.get_submodule(head)
    scaled = "embed_scale" in vars(table) or "embed_scale" in vars(table)["_buffers"]
    for name, plain in (
        (embeddings, isinstance(table, nn.Embedding) and (scaled or type(table).forward is nn.Embedding.forward)),
        (head, isinstance(linear, nn.Linear) and linear.bias is None),
    ):
        if not plain:
            fix = "train it in full: tuning.also_full: [embeddings, head]"
            raise ModelError(f"PEFT can't train single rows of {name}", where="model.add_tokens", fix=fix)


def check_rows_trained(model: nn.Module, trained: Collection[str]) -> None:
    """Full fine-tuning trains whole matrices. Raises ModelError where that of the embeddings or the head would stay as it is."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for part, module in (("embeddings", model.get_input_embeddings()), ("head", model.get_output_embeddings())):
        if module is not None and names[module.weight] not in trained:
            fix = f"add {part} to tuning.parts, or set type: lora, which trains the new rows alone"
            raise ModelError(f"the {part} are not trained, so new tokens would stay at the mean", where="model.add_tokens", fix=fix)
