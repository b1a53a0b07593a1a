"""Writes docs/check.schema.json, the JSON Schema of `foveate check --json`, from the types of the result.

python docs/make_check_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path

from foveate.run.checks.report import report_schema

PAGE = Path(__file__).with_name("check.schema.json")

if __name__ == "__main__":
    PAGE.write_text(json.dumps(report_schema(), indent=1) + "\n", encoding="utf-8")
