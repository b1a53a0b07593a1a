"""What the policy tests look at: the repository's own files."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def repository_files() -> tuple[Path, ...]:
    """Every file that git tracks or would track; not what is ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return tuple(path for name in sorted(filter(None, names)) if (path := ROOT / name).is_file())


@cache
def python_files(*folders: str) -> tuple[Path, ...]:
    """The repository's Python files under the given top folders."""
    return tuple(path for path in repository_files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders)


def shown(path: Path, line: int | None = None) -> str:
    """`src/foveate/x.py:3`."""
    return str(path.relative_to(ROOT)) + (f":{line}" if line is not None else "")
