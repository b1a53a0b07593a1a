"""docs/migrate.md is what the mapping tables say."""

from __future__ import annotations

import subprocess
import sys

from tests.unit.docs.pages import ROOT


def test_the_committed_page_is_what_the_script_makes():
    done = subprocess.run([sys.executable, "docs/make_migrate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
