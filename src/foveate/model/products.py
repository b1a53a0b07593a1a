"""Makes the formula of a model's operations (see flops.py): one forward pass over shapes, each product put down to what it grows with.

The pass is of the model's own code on the meta device, so towers of any kind, merged patches, windows, adapters and experts are
counted as they are. Which gradients a product's backward pass needs follows from what is trained before it, whatever the model computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.config.base import PartName
from foveate.model.adapters import base_model
from foveate.model.attention import segments
from foveate.model.families import Family, checkpointable, keeps_logits
from foveate.model.flops import Formula, Term, extent_of, item_units, signals
from foveate.model.parts import part_of, trained_parts
from foveate.model.pixels import as_weights
from foveate.model.recompute import recomputes_all
from foveate.model.shadow import UNTRACED, Shadow, untraced
from foveate.model.tail import scored_only, tail_of
from foveate.types import Batch

_NEAR = 0.9  # of an item's rows that attention must span to be attention within the whole item: class tokens come on top
# Parts in which something must be trained for a gradient to pass through the inputs of this one.
_BEFORE: dict[PartName, frozenset[PartName]] = {
    "vision": frozenset({"vision"}),
    "projector": frozenset({"vision", "projector"}),
    "language": frozenset({"vision", "projector", "embeddings", "language"}),
    "embeddings": frozenset({"embeddings"}),
    "head": frozenset({"vision", "projector", "embeddings", "language"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """One product as it was seen: of two factors, or attention of query, key and value."""

    part: PartName
    block: str  # that computes it again in the backward pass, or empty
    weighs: int  # factors that are parameters
    trained: bool  # one of these is
    needs: tuple[bool, ...]  # for each factor, whether a gradient passes through it to what lies before
    scored: bool  # its weight belongs to what is computed at scored positions only
    factors: tuple[torch.Size, ...]
    output: torch.Size
    flops: int

    @property
    def rows(self) -> int:
        """Rows of the result, all axes but the last together."""
        return self.output.numel() // max(1, self.output[-1])

    @property
    def spans(self) -> tuple[int, int, int]:
        """m, k, n of a product [m, k] x [k, n]; queries, keys, queries of attention."""
        first, second = self.factors[0], self.factors[1]
        return (first[-2], second[-2], first[-2]) if len(self.factors) == 3 else (first[-2], first[-1], second[-1])

    @property
    def backward(self) -> float:
        """Operations of the gradients that its backward pass must compute."""
        if len(self.factors) != 3:
            return self.flops * (self.trained + sum(self.needs))
        # Forward: scores (as deep as a query) and output (as deep as a value). Backward: the two's gradients, scores' first.
        query, key, value = self.needs
        depth, width = self.factors[0][-1], self.factors[2][-1]
        scores, output = (self.flops * size / (depth + width) for size in (depth, width))
        return output * ((query or key) + value) + scores * (query + key)


def formula_of(model: nn.Module, samples: Sequence[Batch], *, family: Family) -> Formula:
    """The formula of a model on the meta device, tuned as for training.

    Args:
        samples: a real micro-batch of one conversation for each kind of media that training will see, those with media first, its
            images so large that a tower's windows are smaller than they are.

    Raises ModelError for a model whose forward needs values that only weights can give.
    """
    terms: dict[tuple[PartName, str], Term] = {}
    for sample in samples:
        for term in _terms(_Watch(model).run(sample, family), sample):
            terms.setdefault((term.part, term.per), term)
    return Formula(terms=(*terms.values(), *_head(model)))


class _Watch:
    """Collects the products of one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        parts = part_of(model)
        self._trained = trained_parts(model, parts)
        matrices = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim >= 2}
        self._weights = {_key(matrix): (name, parts[name], matrix.requires_grad) for name, matrix in matrices.items()}
        blocks = [f"{name}." for name, block in checkpointable(model).items() if recomputes_all(block)]
        tail = tuple(f"{name}." for name in tail_of(model))
        self._scored = {name for name in matrices if name.startswith(tail)}
        self._block_of = {name: block for block in blocks for name in matrices if name.startswith(block)}
        self._part: PartName = "vision"
        self._block = ""
        self._products: list[_Product] = []

    def run(self, sample: Batch, family: Family) -> list[_Product]:
        """The products of a forward pass over shapes."""
        inputs = {name: tensor.clone() for name, tensor in sample.inputs.items()}
        options = {"logits_to_keep": torch.zeros(1, dtype=torch.long)} if keeps_logits(base_model(self._model)) else {}
        blocks = inputs.get("token_type_ids") if family.image_blocks else None
        try:
            with segments(sample.segments, blocks), scored_only(sample.labels), Shadow(self._model, notice=self._notice):
                self._model(**as_weights(self._model, inputs), use_cache=False, **options)
        except UNTRACED as error:
            raise untraced(error) from error
        return self._products

    def _notice(self, factors: tuple[Tensor, ...], output: Tensor, flops: int) -> None:
        own = [self._weights[key] for factor in factors if (key := _key(factor)) in self._weights]
        if own:  # what follows without weights, attention above all, belongs where the projections before it do
            name, self._part, _ = own[0]
            self._block = self._block_of.get(name, "")
        passes = bool(_BEFORE[self._part] & self._trained)
        self._products.append(
            _Product(
                part=self._part,
                block=self._block,
                weighs=len(own),
                trained=any(trained for _, _, trained in own),
                scored=any(name in self._scored for name, _, _ in own),
                needs=tuple(passes and factor.requires_grad and _key(factor) not in self._weights for factor in factors),
                factors=tuple(factor.shape for factor in factors),
                output=output.shape,
                flops=flops,
            )
        )


def _terms(products: Sequence[_Product], sample: Batch) -> Iterable[Term]:
    """Products summed by part and by what they grow with."""
    extent = extent_of(sample, useful=False)
    again = _repeated(products)
    sums: dict[tuple[PartName, str], list[float]] = {}
    for product, per in zip(products, _grounds(products, sample), strict=True):
        if product.part not in ("head", "embeddings"):  # see `_head`: embeddings multiply only where they are the head's weight
            found = sums.setdefault((product.part, per), [0.0, 0.0, 0.0])
            for i, value in enumerate((product.flops, product.backward, product.flops * (id(product) in again))):
                found[i] += value
    for (part, per), (forward, backward, repeated) in sums.items():
        amount = extent[per]
        yield Term(part=part, per=per, forward=forward / amount, backward=backward / amount, again=repeated / amount)


def _repeated(products: Sequence[_Product]) -> set[int]:
    """Ids of the products that are computed again. A block's last one is not: its result is needed by nobody in the block."""
    last = {product.block: i for i, product in enumerate(products) if product.weighs}
    return {id(product) for i, product in enumerate(products) if product.block and i < last[product.block]}


def _grounds(products: Sequence[_Product], sample: Batch) -> Iterable[str]:
    """For every product what it grows with, see `extent_of`."""
    media = max(signals(sample.inputs), key=lambda name: sample.inputs[name].numel(), default="")
    items = len(item_units(media, sample.inputs)) if media else 1
    read, written = sample.inputs["input_ids"].shape[1], sample.inputs.get("decoder_input_ids")
    rows = 0
    for product in products:
        rows = product.rows if product.weighs else rows
        if product.weighs == len(product.factors):
            yield "rows"
        elif product.scored and product.rows % sample.num_targets == 0:
            yield "targets"
        elif product.part in ("vision", "projector") and media:
            whole = not product.weighs and sum(span >= _NEAR * rows / items for span in product.spans) >= 2
            yield f"{'squares' if whole else 'units'} {media}"
        else:
            yield _of_tokens(product, read, written.shape[1] if written is not None else 0)


def _of_tokens(product: _Product, read: int, written: int) -> str:
    if product.weighs:
        return "written" if written and product.rows % written == 0 and product.rows % read else "tokens"
    reads, writes = (sum(span == size for span in product.spans) for size in (read, written))
    if reads >= 2:
        return "pairs"
    if written and writes >= 2:
        return "crossed" if reads else "written_pairs"
    return "tokens" if not writes else "written"


def _head(model: nn.Module) -> Iterable[Term]:
    """The head at scored positions: its weight forward, for its own gradient where it is trained, and for that of what lies before."""
    head = base_model(model).get_output_embeddings()
    if head is None:
        return
    trained = trained_parts(model, part_of(model))
    flops = 2.0 * head.weight.numel()
    backward = flops * (head.weight.requires_grad + bool(_BEFORE["head"] & trained))
    yield Term(part="head", per="targets", forward=flops, backward=backward, again=0.0)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
