"""Runs contenders in turn, round by round, each in a process of its own, and puts what they did into a table."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.book import markdown
from benchmarks.peers import assets, mixes
from benchmarks.peers.envs import PEERS, ensure
from benchmarks.peers.jobs import Job
from benchmarks.peers.measure import Result, run
from benchmarks.peers.ratios import hopeless

COUNTED_STEPS = 4  # the counters run from the second step to this one
FEW, DROP_AFTER = 0.6, 2  # contenders that never came to this share of the best peer are left out after so many rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How much is measured, and where files lie."""

    folder: Path
    repeats: int
    samples: int  # of each mix

    def model(self, name: str) -> Path:
        """A model's folder."""
        return self.folder / "models" / name

    def data(self, mix: str) -> Path:
        """A mix's folder, written on first use."""
        path = self.folder / "data" / mix
        if not (path / "records.jsonl").is_file():
            mixes.write(mixes.MIXES[mix], path, count=self.samples)
        return path

    def job(self, contender: str, *, model: str, mix: str, **options) -> Job:
        """A job on this setting's files."""
        job = Job(contender=contender, model=self.model(model), data=self.data(mix), out=self.folder / "runs", **options)
        return replace(job, out=self.folder / "runs" / f"{mix}-{contender}-{job.style}")


@dataclass(slots=True, kw_only=True, eq=False)
class Runs:
    """All runs of one comparison, by label. `ours` is Foveate's label, against which the others are held."""

    ours: str
    timed: dict[str, list[Result]] = field(default_factory=dict)
    counted: dict[str, Result] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def rates(self, *, of: str = "tokens_per_cpu_s", peers: bool = True) -> dict[str, list[float]]:
        """label -> a figure of each round; Foveate's own runs are left out where only peers are wanted."""
        return {
            label: [_figure(result, of) for result in results]
            for label, results in self.timed.items()
            if not (peers and label.startswith("Foveate"))
        }

    def figures(self, label: str, of: str = "tokens_per_cpu_s") -> list[float]:
        """A figure of each of this contender's rounds."""
        return [_figure(result, of) for result in self.timed.get(label, [])]


def _figure(result: Result, name: str) -> float:
    return {
        "tokens_per_cpu_s": result.tokens_per_cpu_s,
        "samples_per_cpu_s": result.samples_per_cpu_s,
        "first_step_s": result.first_step_s,
        "cpu_s": result.cpu_s,
    }[name]


@contextmanager
def setting(*, repeats: int, samples: int) -> Iterator[Setting]:
    """Models and data in a folder that goes again afterwards."""
    with tempfile.TemporaryDirectory(prefix="foveate-bench-") as folder:
        assets.write(Path(folder) / "models")
        yield Setting(folder=Path(folder), repeats=repeats, samples=samples)


def compare(jobs: Mapping[str, Job], *, ours: str, repeats: int, count: bool = True) -> Runs:
    """Run all jobs in turn, `repeats` times, then each once under counters.

    A peer that fails is not tried again, and its reason is kept; one that can no longer be the best is left out of later rounds.
    """
    runs, left = Runs(ours=ours), dict(jobs)
    for label, job in jobs.items():
        if job.contender in PEERS and (failure := ensure(job.contender)):
            runs.failures[label] = f"could not be installed: {failure}"
            del left[label]
    for turn in range(repeats):
        if turn >= DROP_AFTER:
            for label in hopeless(runs.rates(), FEW) & left.keys():
                del left[label]
        for label, job in list(left.items()):
            result = run(job)
            _say(label, turn, result)
            if result.failure:
                runs.failures[label] = result.failure
                del left[label]
            else:
                runs.timed.setdefault(label, []).append(result)
            shutil.rmtree(job.out / "run", ignore_errors=True)
    for label, job in jobs.items():
        if count and label in runs.timed and job.style in ("order", "packed"):
            result = run(replace(job, count=COUNTED_STEPS))
            _say(label, None, result)
            if not result.failure:
                runs.counted[label] = result
    return runs


def _say(label: str, turn: int | None, result: Result) -> None:
    what = "counted" if turn is None else f"round {turn + 1}"
    figures = result.failure or f"{result.tokens_per_cpu_s:,.0f} useful tokens and {result.samples_per_cpu_s:.2f} samples a CPU second"
    print(f"  {what}, {label}: {figures}", file=sys.stderr, flush=True)


def table(runs: Runs) -> str:
    """One row for each contender, the failed ones with their reason."""
    header = [
        "", "useful tokens / CPU s", "samples / CPU s", "CPU s", "padding", "MFLOP / useful token", "peak tensors, MB", "peak RSS, MB",
        "first step, s", "runs",
    ]  # fmt: skip
    rows = []
    for label, results in runs.timed.items():
        count, middle = runs.counted.get(label), _middle(results)
        rows.append(
            [
                label,
                f"{middle['tokens']:,.0f}",
                f"{middle['samples']:.2f}",
                f"{middle['cpu']:.1f}",
                f"{100 * results[0].padding:.0f}%",
                f"{count.flops_per_token / 1e6:.1f}" if count else "",
                f"{count.peak_bytes / 1e6:,.0f}" if count else "",
                f"{middle['rss'] / 1e6:,.0f}",
                f"{middle['first']:.1f}",
                str(len(results)),
            ]
        )
    rows += [[label, f"did not run: {reason}", *[""] * 8] for label, reason in runs.failures.items()]
    return markdown(header, rows)


def _middle(results: list[Result]) -> dict[str, float]:
    return {
        "tokens": statistics.median(result.tokens_per_cpu_s for result in results),
        "samples": statistics.median(result.samples_per_cpu_s for result in results),
        "cpu": statistics.median(result.cpu_s for result in results),
        "rss": statistics.median(result.peak_rss for result in results),
        "first": statistics.median(result.first_step_s for result in results),
    }
