"""Runs a job under the tracer and reads what the tracer wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.peers import assets
from benchmarks.peers.jobs import COMMANDS, HERE, ROOT, Job

TIME_LIMIT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run did, from its first training forward to its last optimizer step: every step counts, since where like lengths are grouped
    the first ones are the longest. `failure` says why a run gave nothing."""

    failure: str = ""
    steps: int = 0
    samples: int = 0
    tokens: int = 0  # real ones
    positions: int = 0  # computed ones, padding included
    cpu_s: float = 0.0  # of the process and its children
    wall_s: float = 0.0
    first_step_s: float = 0.0  # from launch to the end of the first optimizer step
    whole_cpu_s: float = 0.0  # from launch to the last step
    peak_rss: int = 0  # bytes
    losses: tuple[float, ...] = ()  # of each step
    step_tokens: tuple[int, ...] = ()  # real tokens of each step
    step_cpu: tuple[float, ...] = ()  # CPU seconds from launch to the end of each step
    flops: int = 0  # of the counted steps
    flop_tokens: int = 0  # real tokens in them
    kept_bytes: int = 0  # weights and optimizer state
    peak_bytes: int = 0  # most live tensor bytes in the counted steps

    @property
    def flops_per_token(self) -> float:
        """FLOPs for each useful token, forward and backward."""
        return self.flops / self.flop_tokens if self.flop_tokens else 0.0

    @property
    def tokens_per_cpu_s(self) -> float:
        """Useful tokens for each CPU second."""
        return self.tokens / self.cpu_s if self.cpu_s else 0.0

    @property
    def samples_per_cpu_s(self) -> float:
        """Samples for each CPU second."""
        return self.samples / self.cpu_s if self.cpu_s else 0.0

    @property
    def padding(self) -> float:
        """Share of the computed positions that hold no token."""
        return 1 - self.tokens / self.positions if self.positions else 0.0


def environment(trace: Path, count: int) -> dict[str, str]:
    """One thread, no network, no GPU, the tracer; the same for all."""
    paths = [str(HERE / "hook"), str(ROOT / "src")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "BENCH_TRACE": str(trace),
        "BENCH_COUNT": str(count),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_DISABLED": "true",
        "MIN_PIXELS": str(assets.MIN_PIXELS),  # ms-swift takes these, and does not look into the processor
        "MAX_PIXELS": str(assets.MAX_PIXELS),
        "PYTHONWARNINGS": "ignore",
    }


def run(job: Job) -> Result:
    """Run the job to its end; a failure is a result too."""
    shutil.rmtree(job.out, ignore_errors=True)
    job.out.mkdir(parents=True)
    trace, log = job.out / "trace.jsonl", job.out / "log.txt"
    command = COMMANDS[job.contender](job)
    (job.out / "command.txt").write_text(" ".join(command) + "\n", encoding="utf-8")
    launched = time.time()
    with log.open("wb") as file:
        try:
            code = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment(trace, job.count), cwd=job.data, timeout=TIME_LIMIT_S
            ).returncode
        except subprocess.TimeoutExpired:
            return Result(failure=f"no end after {TIME_LIMIT_S:.0f} s")
        except FileNotFoundError as error:
            return Result(failure=f"not installed: {error.filename} is missing")
    if code:
        return Result(failure=why(log.read_text("utf-8", errors="replace")) or f"exit code {code}")
    events = [json.loads(line) for line in trace.read_text("utf-8").splitlines()] if trace.exists() else []
    result = read(events, launched=launched)
    return replace(result, samples=_trained(job.out / "run")) if job.contender == "foveate" and not job.count else result


def read(events: list[dict[str, Any]], *, launched: float) -> Result:
    """The tracer's lines -> a result. `launched`: time stamp."""
    ends = [event for event in events if event["event"] == "step"]
    begin = next((event for event in events if event["event"] == "begin"), None)
    if not ends or begin is None:
        return Result(failure="no optimizer step")
    main, last = ends[0]["pid"], ends[-1]
    spans = _spans([event for event in events if event["pid"] == main])
    measured = [event for step in spans for event in step["forward"]]
    count = next((event for event in events if event["event"] == "count"), None)
    return Result(
        steps=len(ends),
        samples=sum(event["samples"] for event in measured),
        tokens=sum(event["tokens"] for event in measured),
        positions=sum(event["positions"] for event in measured),
        cpu_s=last["cpu"] - begin["cpu"],
        wall_s=last["t"] - begin["t"],
        first_step_s=ends[0]["t"] - launched,
        whole_cpu_s=last["cpu"],
        peak_rss=max(event["rss"] for event in ends),
        losses=tuple(sum(event["loss"] for event in step["loss"]) for step in spans),
        step_tokens=tuple(sum(event["tokens"] for event in step["forward"]) for step in spans),
        step_cpu=tuple(event["cpu"] for event in ends),
        flops=count["flops"] if count else 0,
        flop_tokens=sum(event["tokens"] for step in spans[1:] for event in step["forward"]) if count else 0,
        kept_bytes=count["kept"] if count else 0,
        peak_bytes=count["peak"] if count else 0,
    )


def _spans(events: list[dict[str, Any]]) -> list[dict[str, list[dict[str, Any]]]]:
    """The events of each optimizer step, by kind; what follows the last step is left out."""
    spans: list[dict[str, list[dict[str, Any]]]] = []
    current: dict[str, list[dict[str, Any]]] = {"forward": [], "loss": []}
    for event in events:
        if event["event"] == "step":
            spans.append(current)
            current = {"forward": [], "loss": []}
        elif event["event"] in current:
            current[event["event"]].append(event)
    return spans


def _trained(run_dir: Path) -> int:
    """Samples that Foveate's own lines say it trained on: those that share a prefix begin but once, so their positions do not tell."""
    lines = (json.loads(line) for line in (run_dir / "metrics.jsonl").read_text("utf-8").splitlines())
    return sum(line["samples"] for line in lines if "samples" in line)


def why(log: str) -> str:
    """The line of a log that says best why a run failed: the last one that looks like an error, else the last one at all.

    A launcher's word that its process failed is none.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0] or line.startswith("error")]
    errors = [line for line in errors if "CalledProcessError" not in line]
    return (errors or lines or [""])[-1][:300]

