"""`foveate doctor`."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from foveate import __version__
from foveate.machine import cores, memory_bytes

EXTRAS_NOT_SHOWN = ("dev",)  # for those who change Foveate itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report; `state` is ok | missing | problem, `fix` a command or advice."""

    group: str
    name: str
    state: str
    detail: str
    fix: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(as_json: bool) -> int:
    """Show what is installed here, and what is missing. Exit code 1 if training can't work."""
    findings = examine()
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    return 1 if any(finding.state == "problem" for finding in findings) else 0


def examine() -> list[Finding]:
    """Looks at this machine and this Python environment."""
    return [_python(), *_torch(), *_core_packages(), *_extras(), *_machine()]


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} ({platform.system()} {platform.machine()}), Foveate {__version__}"
    return Finding(
        group="core", name="python", state="ok" if ok else "problem", detail=detail, fix="" if ok else "use Python 3.11 or newer"
    )


def _torch() -> list[Finding]:
    try:
        import torch
    except ImportError as error:
        return [Finding(group="core", name="torch", state="problem", detail=str(error), fix="pip install torch")]
    except OSError as error:  # a shared library of another CUDA version
        return [Finding(group="core", name="torch", state="problem", detail=f"can't be loaded: {error}", fix="reinstall torch")]
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    found = [Finding(group="core", name="torch", state="ok", detail=f"{torch.__version__} ({built}), {torch.get_num_threads()} threads")]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        detail = f"{card.name}, {card.total_memory / 2**30:.1f} GiB, compute {card.major}.{card.minor}"
        found.append(Finding(group="core", name=f"cuda:{index}", state="ok", detail=detail))
    if not torch.cuda.is_available():
        found.append(Finding(group="core", name="cuda", state="missing", detail="no usable GPU; training runs on the CPU"))
    return found


def _core_packages() -> list[Finding]:
    found = []
    for name in ("transformers", "peft"):
        version = _version(name)
        state = "ok" if version else "problem"
        found.append(
            Finding(group="core", name=name, state=state, detail=version or "not installed", fix="" if version else f"pip install {name}")
        )
    return [*found, _torchvision()]


def _torchvision() -> Finding:
    """Its state beside this torch: a CUDA build beside a CPU torch lacks two operators, which Foveate defines itself."""
    version = _version("torchvision")
    if version is None:
        detail = "not installed: processors with a video slot (Qwen-VL, SmolVLM, …) can't be built"
        return Finding(group="core", name="torchvision", state="problem", detail=detail, fix="pip install torchvision")
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" in str(error):
            return Finding(
                group="core", name="torchvision", state="ok", detail=f"{version}, built for another torch; Foveate defines what it lacks"
            )
        return Finding(
            group="core", name="torchvision", state="problem", detail=f"{version} fails: {error}", fix="reinstall torch and torchvision"
        )
    except (ImportError, OSError) as error:
        return Finding(
            group="core", name="torchvision", state="problem", detail=f"{version} fails: {error}", fix="reinstall torch and torchvision"
        )
    return Finding(group="core", name="torchvision", state="ok", detail=version)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def extras() -> dict[str, list[str]]:
    """Extra -> its packages, read from Foveate's own metadata, so that this list can't go stale.

    Raises importlib.metadata.PackageNotFoundError when Foveate is on the path without being installed.
    """
    from packaging.requirements import Requirement

    metadata = importlib.metadata.metadata("foveate")
    wanted = [Requirement(text) for text in metadata.get_all("Requires-Dist") or []]
    found: dict[str, list[str]] = {}
    for extra in metadata.get_all("Provides-Extra") or []:
        optional = [item for item in wanted if item.marker and not item.marker.evaluate({"extra": ""})]
        found[extra] = [item.name for item in optional if item.marker and item.marker.evaluate({"extra": extra})]
    return found


def _extras() -> list[Finding]:
    try:
        packages_of = extras()
    except importlib.metadata.PackageNotFoundError:
        detail = "unknown: Foveate is on the path without being installed"
        return [Finding(group="extras", name="foveate", state="missing", detail=detail, fix="pip install -e .")]
    found = []
    for extra, packages in packages_of.items():
        if extra in EXTRAS_NOT_SHOWN:
            continue
        versions = {package: _version(package) for package in packages}
        detail = ", ".join(f"{package} {version or 'missing'}" for package, version in versions.items())
        missing = None in versions.values()
        fix = f'pip install "foveate[{extra}]"' if missing else ""
        found.append(Finding(group="extras", name=extra, state="missing" if missing else "ok", detail=detail, fix=fix))
    return found


def _machine() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    low = free < 5 * 2**30
    fix = "a checkpoint of a 3B model takes 6 GB and more" if low else ""
    disk = Finding(group="machine", name="disk", state="missing" if low else "ok", detail=f"{free / 2**30:.1f} GiB free here", fix=fix)
    processors = Finding(group="machine", name="cores", state="ok", detail=str(cores()))
    memory = Finding(group="machine", name="memory", state="ok", detail=f"{memory_bytes() / 2**30:.1f} GiB")
    return [processors, memory, disk]


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": ("✓", "green"), "missing": ("–", "yellow"), "problem": ("✗", "red")}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "", "what is here", "what to do"):
        table.add_column(title, overflow="fold")
    for group in dict.fromkeys(finding.group for finding in findings):
        table.add_row("", Text(group, style="bold"))
        for finding in (finding for finding in findings if finding.group == group):
            mark, colour = marks[finding.state]
            table.add_row(Text(mark, style=colour), finding.name, Text(finding.detail), Text(finding.fix, style="cyan"))
    Console().print(table)
    bad = [finding.name for finding in findings if finding.state == "problem"]
    print(f"Training can't work: {', '.join(bad)}" if bad else "Ready to train.")
