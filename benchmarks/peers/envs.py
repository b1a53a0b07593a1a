"""The peers' virtual environments, each made from exact pins under a cache folder.

    python -m benchmarks.peers.envs [trl llamafactory swift automodel]

`FOVEATE_BENCH_ENVS` names the folder; `~/.cache/foveate/bench` when unset. requirements/*.txt hold every package of each environment, so
pip resolves nothing. A finished environment is known by a stamp that holds what it was made from.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
PEERS = ("trl", "llamafactory", "swift", "automodel")
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def folder() -> Path:
    """Where the environments lie."""
    chosen = os.environ.get("FOVEATE_BENCH_ENVS")
    return Path(chosen) if chosen else Path.home() / ".cache" / "foveate" / "bench"


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, there or not."""
    return folder() / peer / "bin" / "python"


def ensure(peer: str) -> str:
    """Make the environment unless it is there; returns why it could not be made, or nothing."""
    pins = (REQUIREMENTS / f"{peer}.txt").read_text("utf-8")
    stamp = folder() / peer / ".made-from"
    if stamp.is_file() and stamp.read_text("utf-8") == pins:
        return ""
    print(f"making the environment of {peer} in {folder() / peer} (a few minutes, once)", file=sys.stderr)
    venv.create(folder() / peer, with_pip=True, clear=True)
    torch = next(line for line in pins.splitlines() if line.startswith("torch=="))
    rest = "".join(f"{line}\n" for line in pins.splitlines() if line != torch)
    failure = _torch(peer, torch) or _pip(peer, "--requirement", "/dev/stdin", text=rest)
    if not failure:
        stamp.write_text(pins, encoding="utf-8")
    return failure


def _torch(peer: str, pin: str) -> str:
    """The CPU build: from pip's own sources if they have it, else from the PyTorch project's."""
    if platform.system() != "Linux":
        return _pip(peer, pin)
    return _pip(peer, f"{pin}+cpu") and _pip(peer, "--index-url", CPU_WHEELS, pin)


def _pip(peer: str, *arguments: str, text: str = "") -> str:
    command = [str(python_of(peer)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]


def main() -> None:
    """Make those that are named, all by default."""
    failures = {peer: ensure(peer) for peer in sys.argv[1:] or PEERS}
    for peer, failure in failures.items():
        print(f"{peer}: {failure or 'ready'}")
    sys.exit(any(failures.values()))


if __name__ == "__main__":
    main()
