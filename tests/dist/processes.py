"""Runs a function in several processes that form a gloo group, and gives back what each returned.

The processes are forked from a clean server that has imported torch and transformers once, so starting them costs little.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

_LIMIT_S = 120.0


def clean_server() -> multiprocessing.context.ForkServerContext:
    """The context that forks from a server with everything imported and no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.dist.preload"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # the server of Python 3.11 does not get sys.path by itself
    multiprocessing.forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


def run_ranks(work: Callable[..., Any], world: int, *arguments: Any) -> list[Any]:
    """`work(ranks, *arguments)` in `world` processes -> their results, by rank. `work` must be importable (not a closure)."""
    context = clean_server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    processes = [
        context.Process(target=_enter, args=(work, rank, world, port, pipe[1], arguments), daemon=True) for rank, pipe in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    try:
        outcomes = [receiver.recv() if receiver.poll(_LIMIT_S) else (False, "no answer in time") for receiver, _ in pipes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()
            process.join()
    for rank, (good, result) in enumerate(outcomes):
        assert good, f"rank {rank}:\n{result}"
    return [result for _, result in outcomes]


class _Answer:
    """Sends a process's result, or whatever ended it, to the process that started it."""

    def __init__(self, sender: Connection) -> None:
        self.sender, self.result = sender, None

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self.sender.send((True, self.result) if error is None else (False, "".join(traceback.format_exception(error))))
        self.sender.close()
        return True


def _enter(work: Callable[..., Any], rank: int, world: int, port: int, sender: Connection, arguments: tuple) -> None:
    numbers = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ.update({name: str(number) for name, number in numbers.items()}, MASTER_ADDR="127.0.0.1")
    from foveate.dist.mesh import init_from_env, shut_down

    with _Answer(sender) as answer:
        answer.result = work(init_from_env("cpu", timeout_s=60), *arguments)
    shut_down()
