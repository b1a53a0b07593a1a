"""The ledger of bad records: `quarantine.jsonl`, one line each, on disk before the run goes on."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

from foveate.data.files import sync_folder
from foveate.errors import DataError
from foveate.events import Quarantined
from foveate.types import Origin

_SHARE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")
_NAMED = 5  # records named in the error


class Ledger:
    """Quarantined records, each (split, origin) once however often it is met; survives a resume by its file."""

    def __init__(self, path: Path | None, max_bad: int | str, *, total: int = 0, setting: str = "data.max_bad:") -> None:
        """`path`: the file, read if it exists, or None to keep no file; `max_bad`: a count, or a share of `total` such as "1%".

        `setting` is how the user writes the limit, in front of its value, for the message.
        """
        self._path, self._share, self.total = path, _parse(max_bad), total
        self._setting = f"{setting} {max_bad}"
        self._found: dict[tuple, Quarantined] = {}
        if path is not None and path.exists():
            for item in _load(path):
                self._found[_key(item)] = item

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Quarantined]:
        return iter(self._found.values())

    def __contains__(self, item: Quarantined) -> bool:
        return _key(item) in self._found

    def add(self, item: Quarantined, *, check: bool = True) -> bool:
        """Write the record down, flushed to disk; False when it is known already. DataError once the limit is passed (see `check`)."""
        new = item not in self
        if new:
            self._found[_key(item)] = item
            if self._path is not None:
                _append(self._path, item)
        if check:
            self.check()
        return new

    def limit(self, total: int | None = None) -> int:
        """Bad records tolerated among `total` read ones (the ledger's own `total` when not given)."""
        count, share = self._share
        return count if share is None else math.floor((self.total if total is None else total) * share)

    def check(self) -> None:
        """DataError `too_many_bad` naming the first bad records when there are more than the limit."""
        limit = self.limit()
        if len(self) <= limit:
            return
        lines = [f"  {item.origin}: {item.reason}: {item.problem}" + (f"; {item.fix}" if item.fix else "") for item in list(self)[:_NAMED]]
        rest = len(self) - len(lines)
        more = [f"  and {rest:,} more" + (f" in {self._path}" if self._path else "")] if rest > 0 else []
        raise DataError(
            f"{len(self):,} bad record{'s' if len(self) > 1 else ''}, and `{self._setting}` allows {limit:,}; "
            "mend them, or raise it:\n" + "\n".join([*lines, *more]),
            reason="too_many_bad",
        )  # fmt: skip

    def counts(self, split: str | None = None) -> dict[str, int]:
        """Records by reason, the most frequent first; of one split when it is named."""
        return dict(Counter(item.reason for item in self if split in (None, item.split)).most_common())

    def summary(self, read: int, split: str | None = None) -> str:
        """One line: read = used + quarantined, and why."""
        counts = self.counts(split)
        bad = sum(counts.values())
        why = f" ({', '.join(f'{reason} {count:,}' for reason, count in counts.items())})" if bad else ""
        return f"{read:,} records read = {read - bad:,} used + {bad:,} quarantined{why}"


def _parse(max_bad: int | str) -> tuple[int, Fraction | None]:
    """(count, share); the share as it is written, since 29% of 100 in floating point is 28."""
    if isinstance(max_bad, str):
        match = _SHARE.match(max_bad)
        if match is None or float(match[1]) > 100:
            raise DataError(
                f"max_bad {max_bad!r} is no count and no share", reason="bad_section", where="data.max_bad", fix='write 10, or "1%"'
            )
        return 0, Fraction(match[1]) / 100
    if max_bad < 0:
        raise DataError(f"max_bad is {max_bad}", reason="bad_section", where="data.max_bad", fix="write 0 or more")
    return max_bad, None


def _key(item: Quarantined) -> tuple:
    return item.split, item.origin.dataset, item.origin.file, item.origin.row


def _append(path: Path, item: Quarantined) -> None:
    new = not path.exists()
    with path.open("ab") as file:
        file.write(json.dumps(asdict(item), ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def _load(path: Path) -> list[Quarantined]:
    raw = path.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):  # a line that a killed process left unfinished
        with path.open("r+b") as file:
            file.truncate(whole)
    items = []
    for number, line in enumerate(raw[:whole].splitlines(), 1):
        try:
            fields = json.loads(line)
            items.append(Quarantined(**(fields | {"origin": Origin(**fields["origin"])})))
        except (ValueError, TypeError, KeyError):
            raise DataError(
                "this line is no ledger line", reason="bad_ledger", where=f"{path}:{number}", fix="remove the line, or start a new run"
            ) from None
    return items
