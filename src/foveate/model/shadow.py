"""A forward and backward pass without weights: shapes alone, every byte and operation counted.

Weights lie on the meta device and have no memory. What is computed from the batch alone (masks, positions, the number of patches)
is real, as models decide by it what to do; what touches a weight is a shadow of its shape. So the model's own code runs, towers,
adapters, recomputation and loss included, and nothing about a family has to be known.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from foveate.errors import ModelError

_ATEN = torch.ops.aten
_META = torch.device("meta")
_GROUPED = _ATEN._grouped_mm.default
_BEGINS = object()  # a list among the arguments of an operation
_INDEXING = frozenset({_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default})
# What autocast computes in 16 bits; everything else keeps the type of its inputs.
_NARROW = frozenset(
    {functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.addmm, torch.baddbmm,
     functional.conv1d, functional.conv2d, functional.conv3d, functional.scaled_dot_product_attention}
)  # fmt: skip
# What a model's code may raise when it asks shapes for values.
UNTRACED = (RuntimeError, ValueError)
# Factors (or query, key and value), the result, operations -> nothing.
Notice = Callable[[tuple[Tensor, ...], Tensor, int], None]
_BACKWARD = 2.5  # operations of attention's backward pass against its forward: five products of matrices for two


class Shadow:
    """Counts what happens inside `with`: `flops`, and the bytes of all tensors that are alive at once.

    `peak_bytes` are the most of them, `first_peak_bytes` the most where gradients come into being in this pass, and count.

    Args:
        model: on the meta device; its parameters, buffers and gradients are not counted among the bytes.
        autocast: the type that matrix products are computed in, None for that of the weights.
        notice: told of every product of matrices, convolution and attention, see model/products.py.
    """

    def __init__(self, model: nn.Module, *, autocast: torch.dtype | None = None, notice: Notice | None = None) -> None:
        self.autocast = autocast
        self.notice = notice
        self.flops = 0
        self.live_bytes = 0
        self.peak_bytes = 0
        held = [tensor for tensor in (*model.parameters(), *model.buffers())]
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        self._known = {tensor.untyped_storage()._cdata for tensor in (*held, *gradients)}
        self.unmade = {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in gradients}
        self.made_bytes = 0
        self.first_peak_bytes = 0
        self.results: dict[tuple[Any, ...], Any] = {}  # of operations on shapes that were seen: layers repeat themselves
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

    def count(self, operands: tuple[Tensor, ...], output: Tensor, flops: int) -> None:
        """Count a product's operations."""
        self.flops += flops
        if self.notice is not None:
            self.notice(operands, output, flops)

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
            self.first_peak_bytes = max(self.first_peak_bytes, self.live_bytes + self.made_bytes)

    def made(self, tensor: Tensor) -> None:
        """Note that a parameter's gradient, if `tensor` is one, was added to."""
        self.made_bytes += self.unmade.pop(tensor.untyped_storage()._cdata, 0)

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
        shadow.count((query, key, value), output, ctx.flops)
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
        tensors = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, Tensor)]
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
            self._shadow.count(_factors(operation, tensors), out, counted(*args, **kwargs, out_val=out))
        elif operation is _GROUPED:
            self._shadow.count(_factors(operation, tensors), out, 2 * tensors[0].numel() * tensors[1].shape[-1])
        self._shadow.see(_leaves((out,)))
        if self._shadow.unmade and tensors and operation._overloadpacket is _ATEN.add_:
            self._shadow.made(tensors[0])
        return out

    def _on_shapes(self, operation: Any, args: tuple, kwargs: dict) -> tuple[Any, tuple, dict]:
        if operation in _INDEXING:
            args = (args[0], _places(args[1]), *args[2:])
        if operation is _ATEN._to_copy.default and "device" in kwargs:
            kwargs["device"] = _META
        if operation is _GROUPED:
            return _grouped(*args[:2], offsets=args[2] if len(args) > 2 else kwargs["offs"]), args, kwargs
        leaves = _leaves((args, kwargs))
        if any(map(_is_real, leaves)):
            args, kwargs = tree_map(lambda leaf: torch.empty_like(leaf, device=_META) if _is_real(leaf) else leaf, (args, kwargs))
        if not _is_new(operation):
            return operation(*args, **kwargs), args, kwargs
        key = (operation, *map(_seen_as, leaves), *kwargs)
        known = self._shadow.results.get(key)
        if known is not None:
            shape, stride, dtype = known
            return torch.empty_strided(shape, stride, dtype=dtype, device=_META), args, kwargs
        out = operation(*args, **kwargs)
        if out.is_meta and not _shares(out, leaves):
            self._shadow.results[key] = (out.shape, out.stride(), out.dtype)
        return out, args, kwargs


@cache
def _is_new(operation: Any) -> bool:
    """Whether an operation gives one tensor, said to be neither a view nor changed in place: then shapes alone decide on it."""
    returns, arguments = operation._schema.returns, operation._schema.arguments
    return [str(entry.type) for entry in returns] == ["Tensor"] and all(entry.alias_info is None for entry in (*arguments, *returns))


def _shares(out: Tensor, leaves: Iterable[Any]) -> bool:
    """Whether the result is a view all the same, as that of `_unsafe_view` is."""
    key = out.untyped_storage()._cdata
    return any(isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata == key for leaf in leaves)


def _seen_as(leaf: Any) -> Any:
    """What an operation's result depends on, of one of its arguments."""
    return (leaf.shape, leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else (type(leaf), leaf)


def _leaves(value: Any) -> list[Any]:
    """What lists, tuples and dictionaries of any depth hold, and where one of them begins; an operation's arguments are no others.

    torch's `tree_leaves` asks each of them for more kinds, which is felt with thousands of operations.
    """
    found: list[Any] = []
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (list, tuple, dict)):
            found += (_BEGINS, len(item), *_leaves(item))
        else:
            found.append(item)
    return found


def _grouped(left: Tensor, right: Tensor, *, offsets: Tensor) -> Tensor:
    """The shape of a product by groups of rows, one for each of `offsets`: [rows, k] x [groups, k, n], or [m, rows] x [rows, n].

    torch's own rule for shapes takes bfloat16 alone, its kernels other types as well.
    """
    rows = (left.shape[0],) if right.ndim == 3 else (offsets.numel(), left.shape[0])
    return torch.empty((*rows, right.shape[-1]), dtype=left.dtype, device=_META)


def _factors(operation: Any, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """The two that are multiplied, without what is added."""
    return tuple(tensors[1:3] if operation._overloadpacket in (_ATEN.addmm, _ATEN.baddbmm) else tensors[:2])


def _places(indices: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Real masks as the places that they choose, whose number is then known."""
    places: list[Tensor | None] = []
    for index in indices:
        is_mask = index is not None and not index.is_meta and index.dtype == torch.bool
        places += index.nonzero().unbind(1) if is_mask else [index]
    return places


def untraced(error: Exception) -> ModelError:
    """What to say of a model whose code raised one of `UNTRACED`."""
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelError(f"its step can't be traced without weights: {why}", where="memory", fix="train a few steps to see what it needs")


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and not leaf.is_meta


def _is_wide(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype == torch.float32


def _asks_for_meta(kwargs: dict) -> bool:
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "meta"


def _stays_real(operation: Any, args: tuple, kwargs: dict) -> bool:
    """Whole numbers and truth values do, wherever the model puts them: they say where things are, not what they are."""
    if operation in (_ATEN._to_copy.default, _ATEN.ones.default):  # ones are masks, whatever their type
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
