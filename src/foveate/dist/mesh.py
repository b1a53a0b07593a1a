"""The processes of a run: who this one is, and the few things that all of them do together."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from foveate.errors import FoveateError, ModelError

T = TypeVar("T")
_LEAVE_S = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among `world` processes; `device` is where its tensors live."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """True on the one process that writes files and talks to the user."""
        return self.rank == 0


def pick_device(device: str, local_rank: int = 0) -> torch.device:
    """`auto` takes a GPU where there is one. Raises ModelError for a GPU that is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and count == 0):
        return torch.device("cpu")
    if local_rank >= count:
        raise ModelError(
            f"process {local_rank} has no GPU of its own: {count} found",
            where="train.device",
            fix=f"use --nproc {count}" if count else "use train.device=cpu",
        )
    return torch.device("cuda", local_rank)


def init_from_env(device: str = "auto", timeout_s: float = 600.0) -> Ranks:
    """Joins the processes that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK); one process alone needs no process group.

    On GPUs the group has both NCCL (tensors) and gloo (numbers and objects, so that counting never waits for a GPU). A rank that
    waits longer than `timeout_s` for another one raises.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = pick_device(device, local_rank)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world > 1 and not dist.is_initialized():
        if int(os.environ.get("LOCAL_WORLD_SIZE", "0")) == world and sys.platform == "linux":
            # gloo looks up the host's own name, which containers often can't resolve; one machine needs the loopback only.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
        atexit.register(_leave_at_exit)
    return Ranks(rank=rank, world=world, local_rank=local_rank, device=place)


def shut_down() -> None:
    """Leaves the process group, if there is one. On the way out with an error that is left for the process's end, when the error is told:
    taking the group down may have to wait for processes that wait for this one."""
    if dist.is_initialized() and sys.exc_info()[0] is None:
        dist.destroy_process_group()


def _leave_at_exit() -> None:
    """A process that ends inside a gloo group aborts ("terminate called"), so it leaves the group, within 15 s, or is ended by SIGALRM."""
    if dist.is_initialized():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LEAVE_S)
        dist.destroy_process_group()
        signal.alarm(0)


def barrier() -> None:
    """Returns once every process is here."""
    if dist.is_initialized():
        gather_objects(None)  # over gloo on every device: dist.barrier() would pick a GPU


def all_reduce_sum(values: Sequence[float]) -> list[float]:
    """The sums over all processes, in float64; every process gets the same numbers. Each must give as many values."""
    if not dist.is_initialized():
        return [float(value) for value in values]
    total = torch.tensor(list(values), dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def gather_objects(value: T) -> list[T]:
    """Every process's value, in the order of ranks, on every process."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def on_all(work: Callable[[], T]) -> list[T]:
    """Runs `work` on every process and gives all the results. What the user may see (OSError, FoveateError) on one is raised on all,
    so that no process waits for one that has left."""
    try:
        outcome: tuple[T | None, OSError | FoveateError | None] = (work(), None)
    except (OSError, FoveateError) as error:
        outcome = (None, error)
    outcomes = gather_objects(outcome)
    for _, error in outcomes:
        if error is not None:
            raise error
    return [result for result, _ in outcomes]  # type: ignore[misc]


def on_first(ranks: Ranks, work: Callable[[], T]) -> T:
    """Runs `work` on rank 0 alone and gives its result, or its error, to every process."""
    return on_all(lambda: work() if ranks.first else None)[0]  # type: ignore[return-value]
