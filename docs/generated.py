"""What the generators of pages share: writing the page, or telling whether it is up to date."""

from __future__ import annotations

from pathlib import Path


def write_or_compare(page: Path, text: str, script: str, arguments: list[str]) -> int:
    """Writes the page; with `--check` only compares it, and returns 1 where it differs."""
    if arguments == ["--check"]:
        same = page.is_file() and page.read_text("utf-8") == text
        print(f"{page}: " + ("up to date" if same else f"differs; run python docs/{script}"))
        return 0 if same else 1
    page.write_text(text, encoding="utf-8")
    return 0
