"""A forward and backward pass without weights: shapes alone, every byte and operation counted.

Weights lie on the meta device and have no memory. What is computed from the batch alone (masks, positions, the number of patches)
is real, as models decide by it what to do; what touches a weight is a shadow of its shape. So the model's own code runs, towers,
adapters, recomputation and loss included, and nothing about a family has to be known.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

_ATEN = torch.ops.aten
_META = torch.device("meta")
_INDEXING = frozenset({_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default})
# What autocast computes in 16 bits; everything else keeps the type of its inputs.
_NARROW = frozenset(
    {functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.addmm, torch.baddbmm,
     functional.conv1d, functional.conv2d, functional.conv3d, functional.scaled_dot_product_attention}
)  # fmt: skip
_BACKWARD = 2.5  # operations of attention's backward pass against its forward: five products of matrices for two


class Shadow:
    """Counts what happens inside `with`: `flops`, and the bytes of all tensors that are alive at once.

    Args:
        model: on the meta device; its parameters, buffers and gradients are not counted among the bytes.
        autocast: the type that matrix products are computed in, None for that of the weights.
    """

    def __init__(self, model: nn.Module, *, autocast: torch.dtype | None = None) -> None:
        self.autocast = autocast
        self.flops = 0
        self.live_bytes = 0
        self.peak_bytes = 0
        held = [tensor for tensor in (*model.parameters(), *model.buffers())]
        held += [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        self._known = {tensor.untyped_storage()._cdata for tensor in held}
        self._alive: dict[int, weakref.ref] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Shadow:
        self._stack.enter_context(_Functions(self))
        self._stack.enter_context(_Operations(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def again(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """What surrounds a block's forward pass and its repetition during the backward pass, see `torch.utils.checkpoint`."""
        return nullcontext(), _Functions(self)

    def see(self, outputs: Iterable[Any]) -> None:
        """Count the memory behind tensors that an operation gave, until it is freed."""
        for tensor in outputs:
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self._known or key in self._alive:
                continue
            self._alive[key] = weakref.ref(storage, lambda _, key=key, size=size: self._forget(key, size))
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _forget(self, key: int, size: int) -> None:
        del self._alive[key]
        self.live_bytes -= size


class _Functions(TorchFunctionMode):
    """Replaces fused attention, which the meta device would spell out with a T x T matrix, and does what autocast would do."""

    def __init__(self, shadow: Shadow) -> None:
        super().__init__()
        self._shadow = shadow

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if self._shadow.autocast is not None and function in _NARROW and any(_is_wide(leaf) for leaf in tree_leaves((args, kwargs))):
            args, kwargs = tree_map(lambda leaf: leaf.to(self._shadow.autocast) if _is_wide(leaf) else leaf, (args, kwargs))
        if function is functional.scaled_dot_product_attention:
            query, key, value = (args[i] if i < len(args) else kwargs[name] for i, name in enumerate(("query", "key", "value")))
            if query.is_meta:
                return _Attention.apply(query, key, value, self._shadow)
        return function(*args, **kwargs)


class _Attention(torch.autograd.Function):
    """Keeps for the backward pass what fused kernels keep: query, key, value, output and one number a row."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, shadow: Shadow) -> Tensor:
        """query [..., heads, T, d], key and value [..., kv_heads, S, d] -> [..., heads, T, d]."""
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, rows)
        ctx.shadow, ctx.flops = shadow, 2 * rows.numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        shadow.flops += ctx.flops
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Shapes of the three gradients."""
        query, key, value, _, _ = ctx.saved_tensors
        ctx.shadow.flops += int(_BACKWARD * ctx.flops)
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


class _Operations(TorchDispatchMode):
    """Runs each operation for real or on shapes, and counts it."""

    def __init__(self, shadow: Shadow) -> None:
        super().__init__()
        self._shadow = shadow

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(tensor.is_meta for tensor in tensors):
            if _asks_for_meta(kwargs) and _stays_real(operation, args, kwargs):
                kwargs["device"] = torch.device("cpu")
            out = operation(*args, **kwargs)
        elif operation is _ATEN.copy_.default and not args[0].is_meta:
            return args[0]  # real numbers that become unknown ones: nothing later depends on their values
        else:
            out, args, kwargs = self._on_shapes(operation, args, kwargs)
        counted = flop_registry.get(operation._overloadpacket)
        if counted is not None:
            self._shadow.flops += counted(*args, **kwargs, out_val=out)
        self._shadow.see(tree_leaves(out))
        return out

    def _on_shapes(self, operation: Any, args: tuple, kwargs: dict) -> tuple[Any, tuple, dict]:
        if operation in _INDEXING:
            args = (args[0], _places(args[1]), *args[2:])
        if operation is _ATEN._to_copy.default and "device" in kwargs:
            kwargs["device"] = _META
        args, kwargs = tree_map(lambda leaf: torch.empty_like(leaf, device=_META) if _is_real(leaf) else leaf, (args, kwargs))
        return operation(*args, **kwargs), args, kwargs


def _places(indices: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Real masks as the places that they choose, whose number is then known."""
    places: list[Tensor | None] = []
    for index in indices:
        is_mask = index is not None and not index.is_meta and index.dtype == torch.bool
        places += index.nonzero().unbind(1) if is_mask else [index]
    return places


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and not leaf.is_meta


def _is_wide(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype == torch.float32


def _asks_for_meta(kwargs: dict) -> bool:
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "meta"


def _stays_real(operation: Any, args: tuple, kwargs: dict) -> bool:
    """Whole numbers and truth values do, wherever the model puts them: they say where things are, not what they are."""
    if operation is _ATEN._to_copy.default:
        return True
    dtype = kwargs.get("dtype")
    if dtype is None:
        given = [arg for arg in args if isinstance(arg, Tensor)]
        if given:
            dtype = given[0].dtype
        elif operation._overloadpacket in (_ATEN.arange, _ATEN.full, _ATEN.scalar_tensor):
            return not any(isinstance(leaf, float) for leaf in tree_leaves(args))
        else:
            dtype = torch.get_default_dtype()
    return not dtype.is_floating_point
