"""torch.compile for the repeated blocks of a model: one graph for all blocks of a kind, whatever the length of a row.

Blocks rather than the whole: a decoder's layers share one compiled graph, so that compiling takes as long for 80 layers as for one, and
what surrounds them (media, packing, the loss) may stay plain Python. Attention by segments is left out of the graphs: how a row is cut
changes from row to row.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from foveate.errors import ModelError
from foveate.model import attention
from foveate.model.families import checkpointable


def compile_blocks(model: nn.Module) -> int:
    """Have every repeated block compiled when it first runs; returns how many there are. Recomputation is chosen before.

    Raises ModelError where the model's class has no such blocks.
    """
    from transformers import AttentionInterface
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = checkpointable(model)
    if not blocks:
        raise ModelError("this model has no repeated blocks to compile", where="train.compile", fix="set it to false")
    known = AttentionInterface()
    if attention.NAME in known:
        AttentionInterface.register(attention.NAME, torch.compiler.disable(known[attention.NAME]))
    # transformers 5.23 recomputes inside of `forward`, where a compiled block would hold the recomputation and, since attention breaks the
    # graph, not be compiled at all. Up to 5.17 it stands around the block's call. The branch can go with the support of 5.17.
    around = "__call__" in vars(GradientCheckpointingLayer)
    for block in blocks.values():
        if around or not block.gradient_checkpointing:
            block.compile(dynamic=True)
        else:
            block._gradient_checkpointing_func = partial(_recompute_compiled, block._gradient_checkpointing_func)
    return len(blocks)


def as_written(compiled: bool) -> AbstractContextManager[Any]:
    """Inside, nothing is compiled: generation would compile anew for every layer's cache."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def check_compiler(device: torch.device) -> None:
    """Raises ModelError where torch.compile would find no compiler for its kernels."""
    off, variable, names = "or set it to false", "CXX", ["g++"]
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise ModelError("needs the package triton, which is not installed", where="train.compile", fix=f"pip install triton, {off}")
        variable, names = "CC", ["gcc", "clang"]
    names = [os.environ[variable]] if variable in os.environ else names
    if not any(map(shutil.which, names)):
        fix = f"install it, name another one in the variable {variable}, {off}"
        raise ModelError(f"needs a compiler, and there is no {' or '.join(names)}", where="train.compile", fix=fix)


def _recompute_compiled(recompute: Callable[..., Any], run: partial[Any], *args: Any) -> Any:
    return recompute(_compiled(run.func), *run.args, *args, **run.keywords)


@cache
def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(forward, dynamic=True)
