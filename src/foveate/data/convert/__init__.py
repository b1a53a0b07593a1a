"""Any source becomes Parquet files or WebDataset shards with the media inside, and each record in them is what it was.

Nothing is decoded or encoded anew: media are copied byte by byte. Every record is accounted for: it is written, or it goes to the ledger
with its reason. The result is read again before it takes its place, and every conversation in it is compared with the one it was made
from, by a hash of roles, texts, media bytes, options and answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.config.data import SourceSection
from foveate.config.media import MediaSection
from foveate.data.convert.portable import digest, portable
from foveate.data.convert.shard_writers import Shards, Target
from foveate.data.convert.stage import staged
from foveate.data.files import fingerprint_file
from foveate.data.ledger import Ledger
from foveate.data.mixture import Mixture, build_mixture
from foveate.data.scan import quarantined, scan
from foveate.errors import DataError, FoveateError

MANIFEST = "foveate_convert.json"
_DIGEST_BYTES = 32
Progress = Callable[[str, int, int], object]  # what is done, records done, records in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What was asked for."""

    to: Target
    out: Path
    name: str  # of the shards, which tells their split: `train-00000-of-00003.parquet`
    max_bytes: int | None = None
    max_records: int | None = None
    max_bad: int | str = 0
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What came of it: read = written + bad."""

    out: Path
    files: tuple[Path, ...]
    read: int
    written: int
    bad: dict[str, int]  # reason -> records
    ledger: Path


def ledger_path(out: Path) -> Path:
    """Where the bad records are listed: beside the output, so that it is there even when nothing was written."""
    return out.parent / f"{out.name}.quarantine.jsonl"


def convert(mixture: Mixture, asked: Conversion, *, version: str, progress: Progress | None = None) -> Converted:
    """Write every record of the mixture, verify, and put the folder in its place; or leave nothing behind.

    `version`: Foveate's, for the manifest. DataError `too_many_bad` when more records than `max_bad` can't be used; FoveateError when the
    output can't be written, may not be replaced, or is not read back as it was written.
    """
    _check_places(mixture, asked.out)
    with staged(asked.out, overwrite=asked.overwrite, mark=MANIFEST) as stage:
        ledger_path(asked.out).unlink(missing_ok=True)
        ledger = Ledger(ledger_path(asked.out), asked.max_bad, total=mixture.records, setting="--max-bad")
        shards = Shards(folder=stage, name=asked.name, to=asked.to, max_bytes=asked.max_bytes, max_records=asked.max_records)
        try:
            digests = _write(mixture, shards, ledger, asked.name, progress)
        finally:
            shards.close()
        if not shards.total:
            raise DataError(
                "no record can be used, so nothing is written", reason="source_empty", where=str(ledger_path(asked.out)),
                fix="mend the records that are listed there",
            )  # fmt: skip
        files = shards.finish()
        manifest = _manifest(mixture, asked, ledger, shards.counts, files, digests, version)
        (stage / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _verify(stage, digests, mixture.rules, progress)
    return Converted(
        out=asked.out, files=tuple(asked.out / path.name for path in files), read=mixture.records, written=shards.total,
        bad=ledger.counts(), ledger=ledger_path(asked.out),
    )  # fmt: skip


def unweighted(section: SourceSection) -> SourceSection:
    """The source with each of its records once: a weight is the recipe's that trains on it. FoveateError for a stream."""
    if section.streaming:
        raise FoveateError("a stream can't be converted, as it has no end", where=section.hub or "", fix="set `streaming: false`")
    return section.model_copy(update={"weight": 1.0, "count": None})


def _write(mixture: Mixture, shards: Shards, ledger: Ledger, split: str, progress: Progress | None) -> bytearray:
    """Write all records that can be used; returns their digests, one behind the other."""
    digests = bytearray()

    def done(count: int, total: int) -> None:
        if progress is not None:
            progress("writing", count, total)

    for verdict in scan(mixture, level="headers", rules=mixture.rules, split=split, on_bad=ledger.add, progress=done):
        if verdict.conversation is None:
            continue
        try:
            record = portable(verdict.conversation, rules=mixture.rules)
            shards.add(record)
        except DataError as error:
            ledger.add(quarantined(error, verdict.origin, split))
            continue
        digests += digest(record)
    return digests


def _verify(folder: Path, digests: bytes | bytearray, rules: MediaSection, progress: Progress | None) -> None:
    """Read the folder as any source is read, and compare each record. FoveateError naming the first that is not what it was."""
    again = build_mixture([SourceSection(path=str(folder))], rules=rules)
    total = len(digests) // _DIGEST_BYTES
    if len(again) != total:
        raise _differs(f"{len(again):,} records are read back, and {total:,} were written")
    for number in range(total):
        try:
            found = digest(portable(again.conversation(number), rules=rules))
        except DataError as error:
            raise _differs(f"record {number} can't be read back: {error}") from None
        if found != digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES]:
            raise _differs(f"record {number} ({again.origin(number)}) is not what was written")
        if progress is not None:
            progress("verifying", number + 1, total)


def _differs(problem: str) -> FoveateError:
    return FoveateError(f"the output is not right: {problem}", fix="check the disk; if it is sound, this is a bug: please report it")


def _manifest(
    mixture: Mixture, asked: Conversion, ledger: Ledger, counts: list[int], files: list[Path], digests: bytes | bytearray, version: str
) -> dict[str, Any]:
    return {
        "foveate": version,
        "to": asked.to,
        "read": mixture.records,
        "written": sum(counts),
        "bad": ledger.counts(),
        "source": {"fingerprint": mixture.fingerprint(), "sources": mixture.describe()},
        "content_sha256": hashlib.sha256(digests).hexdigest(),
        "files": [
            {"name": path.name, "records": count, "bytes": path.stat().st_size, "fingerprint": fingerprint_file(path)}
            for path, count in zip(files, counts, strict=True)
        ],
    }


def _check_places(mixture: Mixture, out: Path) -> None:
    """FoveateError when the output lies in a source's folder, or the other way round: the one would change the other."""
    own = out.resolve()
    for section in mixture.sections:
        if section.path is None:
            continue
        source = Path(section.path).resolve()
        if own == source or own in source.parents or (source.is_dir() and source in own.parents):
            raise FoveateError(
                f"the output and the source {section.path} lie in each other", where=str(out), fix="name a folder elsewhere with --output"
            )
