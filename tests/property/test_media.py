"""2,000 damaged media files, in a process with little memory: each is opened or refused, never anything else."""

from __future__ import annotations

import os
import selectors
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.property.media_files import mutations

ROOT = Path(__file__).resolve().parents[2]
FILES = 2_000
MEMORY_BYTES = 3 << 30
LIMIT_S = 5.0


def write(folder: Path, count: int, seed: int = 0) -> None:
    """All mutations in one file, each with the length of its name and its own before it."""
    (folder / "made").mkdir()
    with (folder / "mutations.bin").open("wb") as file:
        for kind, name, data in mutations(folder / "made", count, seed):
            label = f"{kind.__name__} {name}".encode()
            file.write(struct.pack("<IQ", len(label), len(data)) + label + data)


class Child:
    """The decoding process, its lines read with a time limit."""

    def __init__(self, folder: Path, first: int) -> None:
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / "tests" / "property" / "decode_child.py"), str(folder), str(first), str(MEMORY_BYTES)]
        with (folder / "errors.txt").open("wb") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=ROOT)
        self._ready = selectors.DefaultSelector()
        self._ready.register(self.process.stdout, selectors.EVENT_READ)
        self._held = b""

    def line(self, limit_s: float) -> str | None:
        """The next line; "" at the end, None when it does not come in time."""
        while b"\n" not in self._held:
            if not self._ready.select(limit_s):
                return None
            block = os.read(self.process.stdout.fileno(), 1 << 16)
            if not block:
                return ""
            self._held += block
        line, self._held = self._held.split(b"\n", 1)
        return line.decode(errors="replace")

    def close(self) -> int:
        """Wait for its end, or make it; returns its exit status."""
        try:
            status = self.process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._ready.close()
        self.process.stdout.close()
        return status


def run(folder: Path, count: int) -> tuple[Counter, list[str]]:
    """How many files came to each end, and the findings."""
    ends: Counter = Counter()
    findings: list[str] = []
    done = 0
    while done < count:
        child = Child(folder, done)
        current, limit_s = "starting", 60.0
        while (line := child.line(limit_s)) not in ("", None):
            word, _, rest = line.partition(" ")
            if word == "begin":
                current = rest
            else:
                ends[rest.split(":")[0] if rest.startswith("WRONG") else rest] += 1
                findings += [f"{current}: {rest}"] if rest.startswith("WRONG") else []
                done += 1
            limit_s = LIMIT_S
        status = child.close()
        if done < count:
            said = (folder / "errors.txt").read_text("utf-8", errors="replace").splitlines()[-3:]
            findings.append(f"{current}: {'no end in time' if line is None else f'the process died ({status})'} {' | '.join(said)}")
            if current == "starting":
                break
            done += 1
    return ends, findings


def test_every_damaged_file_is_opened_or_refused(tmp_path):
    write(tmp_path, FILES)
    ends, findings = run(tmp_path, FILES)
    assert findings == [], "\n".join(findings)
    assert sum(ends.values()) == FILES
    # Not all of them are refused at the door, nor is everything let in.
    assert FILES * 0.05 < ends["opened"] < FILES * 0.8 and len(ends) > 15
