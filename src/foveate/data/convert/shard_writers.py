"""Writers of converted records: Parquet files and WebDataset shards, a new one when the last is full."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from foveate.data.convert.portable import TEXTS, Medium, Portable
from foveate.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Target = Literal["parquet", "webdataset"]
# A row is read by decoding the row group that holds it, so groups are small: some 20 pictures.
_GROUP_BYTES, _GROUP_RECORDS = 2 << 20, 128
_ARROW_BYTES = (1 << 31) - 1  # what one value or column of a row group may hold
_KEY_DIGITS = 9


class ShardWriter(Protocol):
    """Writes the records of one shard."""

    def add(self, record: Portable, number: int) -> None:
        """Write a record; `number` counts all records of the conversion. DataError when the format can't hold it."""
        ...

    def close(self) -> None:
        """Finish the shard."""
        ...


@dataclass(kw_only=True, slots=True)
class Shards:
    """All shards of one conversion: `NAME-00000.parquet` ..., at most `max_records` records and about `max_bytes` bytes each."""

    folder: Path
    name: str
    to: Target
    max_bytes: int | None = None
    max_records: int | None = None
    counts: list[int] = field(default_factory=list)  # records of each shard
    total: int = 0
    _writer: ShardWriter | None = None
    _bytes: int = 0

    def add(self, record: Portable) -> None:
        """Write a record to the shard that has room. DataError when the format can't hold it."""
        size = record.size
        _check_fits(record, self.to)
        full = self.counts and (
            (self.max_records is not None and self.counts[-1] >= self.max_records)
            or (self.max_bytes is not None and self._bytes + size > self.max_bytes)
        )
        if self._writer is None or full:
            self.close()
            self._writer = self._open(self.folder / f"{self.name}-{len(self.counts):05d}.{_SUFFIX[self.to]}")
            self.counts.append(0)
            self._bytes = 0
        self._writer.add(record, self.total)
        self.counts[-1] += 1
        self.total += 1
        self._bytes += size

    def close(self) -> None:
        """Finish the last shard."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def finish(self) -> list[Path]:
        """The shards, renamed so that each says how many there are: `train-00000-of-00003.parquet`."""
        self.close()
        files = []
        for number in range(len(self.counts)):
            suffix = _SUFFIX[self.to]
            path = self.folder / f"{self.name}-{number:05d}-of-{len(self.counts):05d}.{suffix}"
            (self.folder / f"{self.name}-{number:05d}.{suffix}").rename(path)
            files.append(path)
        return files

    def _open(self, path: Path) -> ShardWriter:
        return ParquetShard(path) if self.to == "parquet" else TarShard(path)


_SUFFIX: dict[Target, str] = {"parquet": "parquet", "webdataset": "tar"}


def _check_fits(record: Portable, to: Target) -> None:
    if to == "parquet" and record.size > _ARROW_BYTES:
        raise DataError(
            f"its media have {record.size:,} bytes, and a row of Parquet holds 2 GiB", reason="not_convertible",
            fix="convert with `--to webdataset`",
        )  # fmt: skip


class ParquetShard:
    """Rows of the format `messages`: see `parquet_schema`."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        # A file of Python's, so that a full disk is an OSError with its number.
        self._file = path.open("wb")
        # Media do not pack any further, and statistics of them would copy them into the footer.
        self._writer = pq.ParquetWriter(
            self._file, parquet_schema(), compression="none", use_dictionary=["messages.list.element.role"], write_statistics=False
        )
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, record: Portable, number: int) -> None:
        """Keep the row until its row group is full."""
        if self._bytes + record.size > _GROUP_BYTES:
            self._flush()
        self._rows.append(_parquet_row(record))
        self._bytes += record.size
        if len(self._rows) >= _GROUP_RECORDS:
            self._flush()

    def close(self) -> None:
        """Write what is kept, and the footer."""
        self._flush()
        self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=parquet_schema()))
        self._rows, self._bytes = [], 0


def parquet_schema() -> pa.Schema:
    """`messages` (parts that take the next medium of their column), `images`, `audios`, `videos` ({bytes, path}), `answers`,
    `tools` (JSON)."""
    import pyarrow as pa

    medium = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    part = pa.struct(
        [
            ("type", pa.string()), ("text", pa.string()), ("max_pixels", pa.int64()), ("num_frames", pa.int64()), ("fps", pa.float64()),
            ("start", pa.float64()), ("end", pa.float64()), ("frames_fps", pa.float64()),
        ]
    )  # fmt: skip
    call = pa.struct(
        [("id", pa.string()), ("type", pa.string()), ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())]))]
    )
    message = pa.struct(
        [
            ("role", pa.string()), ("content", pa.list_(part)), ("train", pa.bool_()), ("weight", pa.float64()),
            ("reasoning_content", pa.string()), ("tool_calls", pa.list_(call)), ("tool_call_id", pa.string()), ("name", pa.string()),
        ]
    )  # fmt: skip
    return pa.schema(
        [
            ("messages", pa.list_(message)), ("images", pa.list_(medium)), ("audios", pa.list_(medium)),
            ("videos", pa.list_(pa.struct([*medium, ("frames", pa.list_(medium))]))), ("answers", pa.list_(pa.string())),
            ("tools", pa.string()),
        ]
    )  # fmt: skip


def _parquet_row(record: Portable) -> dict[str, Any]:
    row: dict[str, Any] = {"messages": list(record.messages), "answers": list(record.answers), "images": [], "audios": [], "videos": []}
    row["tools"] = f"[{', '.join(record.tools)}]" if record.tools else None
    for medium in record.media:
        value: dict[str, Any] = {"bytes": medium.data, "path": medium.name}
        if medium.frames:
            value = {"frames": [{"bytes": frame.data, "path": frame.name} for frame in medium.frames]}
        row[f"{medium.kind}s"].append(value)
    return row


class TarShard:
    """Samples of WebDataset: `000000042.json` holds the messages and names the media, `000000042.0.jpg` ..."""

    def __init__(self, path: Path) -> None:
        self._archive = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)

    def add(self, record: Portable, number: int) -> None:
        """Write the sample's members one behind the other."""
        key = f"{number:0{_KEY_DIGITS}d}"
        media: list[tuple[str, Medium]] = []
        names = []
        for medium in record.media:
            own = []
            for single in medium.frames or (medium,):
                own.append(f"{len(media)}.{single.name.rpartition('.')[2]}")
                media.append((own[-1], single))
            names.append(own if medium.frames else own[0])
        rest = iter(names)
        messages = [{**message, "content": [_named(part, rest) for part in message["content"]]} for message in record.messages]
        row = {"messages": messages, "answers": record.answers} | ({"tools": list(map(json.loads, record.tools))} if record.tools else {})
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        self._write(f"{key}.json", text.encode())
        for name, medium in media:
            self._write(f"{key}.{name}", medium.data)

    def close(self) -> None:
        """Write the mark of the end."""
        self._archive.close()

    def _write(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # without times and owners: the same records give the same bytes
        info.size = len(data)
        self._archive.addfile(info, io.BytesIO(data))


def _named(part: dict[str, Any], names: Iterator[Any]) -> dict[str, Any]:
    return part if part["type"] in TEXTS else {**part, part["type"]: next(names)}
