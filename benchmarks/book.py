"""What the benchmarks found: kept in results.json, shown in RESULTS.md and on the terminal. One part at a time may be measured anew."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).parent
STORE, PAGE = HERE / "results.json", HERE / "RESULTS.md"
PACKAGES = ("torch", "transformers", "peft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One measure with its target."""

    measure: str
    target: str
    seen: str
    met: bool | None  # None where it was not measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One benchmark's outcome. `text` is markdown; `failure` says why there is none."""

    name: str
    claims: tuple[Claim, ...] = ()
    text: str = ""
    failure: str = ""


def machine() -> str:
    """`Linux x86_64, 2 cores, some processor`."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text("utf-8").splitlines() if found.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores" + (f", {model}" if model else "")


def versions() -> str:
    """Of Python and of what does the work."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)])


def keep(part: Part, *, command: str, store: Path = STORE, page: Path = PAGE) -> None:
    """Put the part in the place of its earlier outcome, and write the page anew."""
    held = load(store)
    held[part.name] = {**asdict(part), "date": date.today().isoformat(), "machine": machine(), "versions": versions(), "command": command}
    store.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(render(held) + written_by_hand(page, held), encoding="utf-8")


def written_by_hand(page: Path, held: dict[str, dict[str, Any]]) -> str:
    """Sections of the page that are no part's: another script's, or somebody's own."""
    text = page.read_text("utf-8") if page.is_file() else ""
    sections = ["## " + section for section in text.split("\n## ")[1:]]
    return "".join(f"\n{section.rstrip()}\n" for section in sections if section.splitlines()[0].removeprefix("## ") not in held)


def load(store: Path = STORE) -> dict[str, dict[str, Any]]:
    """Name -> what was kept."""
    return json.loads(store.read_text("utf-8")) if store.is_file() else {}


def render(held: dict[str, dict[str, Any]]) -> str:
    """The whole page."""
    lines = ["# Results", "", "Written by `make bench`; what each script claims stands in [README.md](README.md).", ""]
    lines += ["| measure | target | seen | met |", "|---|---|---|---|"]
    for entry in held.values():
        for claim in entry["claims"]:
            cells = (claim["measure"], claim["target"], claim["seen"], _met(claim["met"]))
            lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    for name, entry in held.items():
        lines += ["", f"## {name}", "", f"{entry['date']}, {entry['machine']}; {entry['versions']}.", "", f"    {entry['command']}", ""]
        lines += [f"Not measured: {entry['failure']}"] if entry["failure"] else [entry["text"].rstrip()]
    return "\n".join(lines) + "\n"


def show(console: Console, held: dict[str, dict[str, Any]], names: list[str]) -> None:
    """The parts just measured, as one table."""
    table = Table("measure", "target", "seen", "met", title="Foveate's benchmarks")
    for entry in (held[name] for name in names):
        for claim in entry["claims"]:
            colour = {True: "green", False: "red", None: "yellow"}[claim["met"]]
            table.add_row(escape(claim["measure"]), claim["target"], escape(claim["seen"]), f"[{colour}]{_met(claim['met'])}[/]")
        if entry["failure"]:
            table.add_row(entry["name"], "", escape(entry["failure"]), "[red]failed[/]")
        elif not entry["claims"]:
            table.add_row(entry["name"], "", "figures in RESULTS.md", "")
    console.print(table)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table, its first column to the left and the others to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows])


def _met(met: bool | None) -> str:
    return {True: "yes", False: "no", None: "not measured"}[met]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
