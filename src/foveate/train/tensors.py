"""What of a model and its optimizer goes into a checkpoint, under names that no strategy or number of processes changes.

model/<parameter>     trained parameters            buffer/<buffer>     persistent buffers
optim/<parameter>/<key>                             the optimizer's state, e.g. exp_avg; <key>#int where it is a plain whole number
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from foveate.config.suggest import listed
from foveate.dist.mesh import Ranks
from foveate.dist.strategy import unwrap
from foveate.errors import CheckpointError

_INT = "#int"
_FIX = "resume with the recipe and the Foveate version that wrote it, or start a new run"


def live_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Trained parameters and persistent buffers by name; the model's own tensors, not copies."""
    model = unwrap(model)
    # FSDP2 leaves the root's weights gathered after an evaluation; asking for the state puts every share back in place.
    persistent = model.state_dict().keys()
    tensors = {f"model/{name}": parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors |= {f"buffer/{name}": buffer for name, buffer in model.named_buffers() if name in persistent}
    return tensors


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name. A parameter that never had a gradient has none."""
    found: dict[str, Tensor] = {}
    for name, parameter in unwrap(model).named_parameters():
        if parameter.requires_grad:
            state = optimizer.state.get(parameter, {})
            found |= {f"optim/{name}/{key}": value for key, value in state.items() if isinstance(value, Tensor)}
            found |= {f"optim/{name}/{key}{_INT}": torch.tensor(value) for key, value in state.items() if isinstance(value, int)}
    return found


def total_bytes(tensors: dict[str, Tensor]) -> int:
    """Bytes of the whole tensors, all shares counted once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@contextmanager
def _quiet() -> Iterator[None]:
    """DCP warns on every call that one process works alone, which is what was asked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def write(folder: Path, tensors: dict[str, Tensor], ranks: Ranks) -> None:
    """Writes the tensors below `folder`, each process its share, synced. Raises DCP's CheckpointException on every process."""
    with _quiet():
        dcp.save(tensors, storage_writer=dcp.FileSystemWriter(folder, sync_files=True), no_dist=ranks.world == 1)


def read(folder: Path, model: nn.Module, optimizer: Optimizer, ranks: Ranks) -> None:
    """Fills the model's trained parameters and buffers, and the optimizer, from `folder`, whatever number of processes wrote it.

    Raises CheckpointError where names or shapes do not match; the model is untouched then.
    """
    wanted: dict[str, Tensor] = dict(live_tensors(model))
    stored = _stored(folder)
    _check_names(folder, wanted, stored)
    if not any(name.startswith("optim/") for name in stored) and not _keeps_nothing(optimizer):
        raise CheckpointError("it has no optimizer state", where=str(folder), fix=_FIX)
    state = _empty_state(model, stored)
    wanted |= {f"optim/{name}/{key}": value for name, values in state.items() for key, value in values.items()}
    _fill(folder, wanted, ranks)
    _fill_optimizer(model, optimizer, state)


def read_weights(folder: Path, model: nn.Module, ranks: Ranks) -> None:
    """The same for the model alone: its trained parameters and buffers, no optimizer."""
    wanted: dict[str, Tensor] = dict(live_tensors(model))
    _check_names(folder, wanted, _stored(folder))
    _fill(folder, wanted, ranks)


def _stored(folder: Path) -> dict[str, TensorStorageMetadata]:
    metadata = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    return {name: meta for name, meta in metadata.items() if isinstance(meta, TensorStorageMetadata)}


def _fill(folder: Path, wanted: dict[str, Tensor], ranks: Ranks) -> None:
    try:
        with _quiet():
            dcp.load(wanted, storage_reader=dcp.FileSystemReader(folder), no_dist=ranks.world == 1)
    except CheckpointException as error:
        raise CheckpointError(f"the tensors can't be read ({_reason(error)})", where=str(folder), fix=_FIX) from error


def _reason(error: CheckpointException) -> str:
    return next((str(cause) for cause, _ in error.failures.values()), str(error))


def _check_names(folder: Path, wanted: dict[str, Tensor], stored: dict[str, TensorStorageMetadata]) -> None:
    """The checkpoint must hold exactly the trained tensors, in their shapes."""
    held = {name for name in stored if not name.startswith("optim/")}
    for names, problem in ((wanted.keys() - held, "it lacks"), (held - wanted.keys(), "this run does not train what it holds:")):
        if names:
            raise CheckpointError(f"{problem} {listed(sorted(names), 3)}", where=str(folder), fix=_FIX)
    for name, tensor in wanted.items():
        if tensor.shape != stored[name].size:
            shapes = f"{list(stored[name].size)} in it, {list(tensor.shape)} in this run"
            raise CheckpointError(f"{name} is {shapes}", where=str(folder), fix=_FIX)


def _empty_state(model: nn.Module, stored: dict[str, TensorStorageMetadata]) -> dict[str, dict[str, Tensor]]:
    """Room for each stored piece of optimizer state: like the parameter where it has its shape, else (step) a small CPU tensor."""
    state: dict[str, dict[str, Tensor]] = {}
    parameters = dict(unwrap(model).named_parameters())
    for name, meta in stored.items():
        if not name.startswith("optim/"):
            continue
        owner, key = name.removeprefix("optim/").rsplit("/", 1)
        parameter = parameters[owner].detach()
        dtype = meta.properties.dtype
        like = meta.size == parameter.shape and (parameter.ndim > 0 or key != "step")
        empty = torch.empty_like(parameter, dtype=dtype) if like else torch.empty(meta.size, dtype=dtype)
        state.setdefault(owner, {})[key] = empty
    return state


def _fill_optimizer(model: nn.Module, optimizer: Optimizer, state: dict[str, dict[str, Tensor]]) -> None:
    """Gives the state to the optimizer by its own rules (where `step` lives depends on the implementation)."""
    plain = {
        name: {key.removesuffix(_INT): int(value) if key.endswith(_INT) else value for key, value in values.items()}
        for name, values in state.items()
    }
    names = {parameter: name for name, parameter in unwrap(model).named_parameters()}
    if type(optimizer).__module__.startswith("bitsandbytes"):
        _fill_bitsandbytes(optimizer, {parameter: plain[name] for parameter, name in names.items() if name in plain})
        return
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": {i: plain[name] for i, name in enumerate(ordered) if name in plain}, "param_groups": groups})


def _fill_bitsandbytes(optimizer: Optimizer, state: dict[nn.Parameter, dict[str, Any]]) -> None:
    """Fills room that the optimizer made itself: its `load_state_dict` would leave paged states in the GPU's own memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")  # where there is nothing to page out of
        for gindex, group in enumerate(optimizer.param_groups):
            for pindex, parameter in enumerate(group["params"]):
                if parameter not in state:
                    continue
                optimizer.init_state(group, parameter, gindex, pindex)
                for key, value in state[parameter].items():
                    if isinstance(value, Tensor):
                        optimizer.state[parameter][key].copy_(value)
                    else:
                        optimizer.state[parameter][key] = value


def _keeps_nothing(optimizer: Optimizer) -> bool:
    return isinstance(optimizer, torch.optim.SGD) and not any(group["momentum"] for group in optimizer.param_groups)


def whole_state(model: nn.Module, *, without_frozen: bool = False) -> dict[str, Tensor]:
    """The model's state with every sharded tensor gathered on the CPU. All processes must call this; rank 0's is for writing.

    One tensor at a time is gathered, so no process holds more than the largest beside the result, and only rank 0 keeps the result.
    """
    model = unwrap(model)
    frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    state: dict[str, Tensor] = {}
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    for name, tensor in model.state_dict().items():
        if without_frozen and name in frozen:
            continue
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if first:
            state[name] = whole.detach().cpu()
    return state
