"""A headless Chromium for tests: what a page prints to its console, what it would look like, and the DOM after its scripts ran."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
)


def find_chromium() -> str:
    """The browser's path. Skips the test where there is none, unless CI is set: there it must be."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: apt-get install -y chromium")
        pytest.skip("no chromium on this machine")
    return found


def dom_after(page: Path, *, width: int = 1280, script: str = "") -> tuple[str, list[str]]:
    """(the DOM as HTML once `script` has run in the page, lines of the console).

    `script` is put at the end of a copy of the page; the page itself is opened as it is when there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        opened = page
        if script:
            opened = Path(folder) / "page.html"
            opened.write_text(page.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
        command = [
            find_chromium(),
            *_FLAGS,
            f"--user-data-dir={folder}/profile",
            f"--window-size={width},1200",
            "--virtual-time-budget=2000",
        ]
        done = subprocess.run([*command, "--dump-dom", opened.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
