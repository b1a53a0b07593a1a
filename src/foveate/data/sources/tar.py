"""An index of tar shards by their headers alone: bodies are skipped over, so a shard of any size costs what its members' number costs.

Python's `tarfile` makes an object of each member, for 10,000 of them 0.2 to 0.5 s; reading the few fields that an index needs takes a
third of that, and shards come by the hundred. The layouts read are those that writers of shards use: ustar, GNU's long names and
numbers, and pax headers (a path, a size).

A sample is a run of members with one key: the path up to the first dot of its last part, as WebDataset has it
(https://github.com/webdataset/webdataset). Left out are folders, hidden files (`._x.jpg`), names without a dot, and names such as
`__info__.json`, which WebDataset keeps for itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foveate.data.files import check_readable
from foveate.errors import DataError

BLOCK_BYTES = 512
OK, SCATTERED, TWICE, NO_FILE = range(4)  # what may be wrong with a sample
_FILES, _FOLDER, _LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _LABEL = b"0\0007", b"5", b"L", b"K", b"xX", b"g", b"V"
_META = re.compile(r"(^|/)__[^/]*__($|[./])")
_LONGEST_EXTRA = 1 << 20  # bytes of a pax header or long name; a longer one is damage
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TarIndex:
    """Where every sample of some shards lies: M members, S samples, in the order of the shards."""

    offsets: np.ndarray  # [M] int64: first byte of the member's body in its shard
    sizes: np.ndarray  # [M] int64, bytes
    endings: np.ndarray  # [M] int32: its ending, by number in `names`
    first: np.ndarray  # [S + 1] int64: the sample's first member
    shards: np.ndarray  # [S] int32
    faults: np.ndarray  # [S] uint8: OK, or why the sample can't be used
    keys: bytes  # all keys behind each other
    key_ends: np.ndarray  # [S + 1] int64, bytes
    names: tuple[str, ...]  # endings, as written: `jpg`, `img1.png`
    stamps: tuple[tuple[int, int], ...]  # size in bytes and modification time (ns) of each shard

    def __len__(self) -> int:
        return len(self.shards)

    def key(self, index: int) -> str:
        """A sample's key, folders of the archive included."""
        return self.keys[self.key_ends[index] : self.key_ends[index + 1]].decode("utf-8", "surrogateescape")

    def taken(self, places: np.ndarray) -> TarIndex:
        """The index of some samples only, `places` ascending."""
        counts = self.first[places + 1] - self.first[places]
        members = np.concatenate([np.arange(self.first[place], self.first[place + 1]) for place in places] or [np.zeros(0, np.int64)])
        keys = [self.keys[self.key_ends[place] : self.key_ends[place + 1]] for place in places]
        return TarIndex(
            offsets=self.offsets[members], sizes=self.sizes[members], endings=self.endings[members], first=_ends(counts),
            shards=self.shards[places], faults=self.faults[places], keys=b"".join(keys), key_ends=_ends([len(key) for key in keys]),
            names=self.names, stamps=self.stamps,
        )  # fmt: skip


def index_shards(files: Sequence[Path]) -> TarIndex:
    """Read the headers of every shard. DataError `bad_tar` or `tar_truncated`, naming shard and byte, for one that is not whole."""
    columns: list[list[np.ndarray]] = [[], [], [], [], [], []]
    names: dict[str, int] = {}
    keys: list[bytes] = []
    lengths: list[np.ndarray] = []
    stamps = []
    for number, path in enumerate(files):
        check_readable(path, "shard")
        with path.open("rb", buffering=0) as file:
            state = os.fstat(file.fileno())
            stamps.append((state.st_size, state.st_mtime_ns))
            shard = _Samples(names)
            for name, kind, offset, size in members_of(file.fileno(), state.st_size, path):
                shard.add(name, kind, offset, size)
        for column, values in zip(columns, shard.columns(number), strict=True):
            column.append(values)
        keys.append(b"".join(shard.keys))
        lengths.append(np.array([len(key) for key in shard.keys], dtype=np.int64))
    offsets, sizes, endings, counts, shards, faults = (np.concatenate(column) for column in columns)
    return TarIndex(
        offsets=offsets, sizes=sizes, endings=endings, first=_ends(counts), shards=shards, faults=faults, keys=b"".join(keys),
        key_ends=_ends(np.concatenate(lengths)), names=tuple(names), stamps=tuple(stamps),
    )  # fmt: skip


def _ends(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


class _Samples:
    """The samples of one shard while it is read."""

    def __init__(self, names: dict[str, int]) -> None:
        self._names = names
        self._members: list[tuple[int, int, int]] = []
        self._counts: list[int] = []
        self._faults: list[int] = []
        self.keys: list[bytes] = []
        self._seen: dict[str, int] = {}
        self._key: str | None = None
        self._own: set[str] = set()  # the endings of the sample that is being read

    def add(self, name: str, kind: bytes, offset: int, size: int) -> None:
        key, ending = split_name(name)
        if not ending or _META.search(name):
            return
        if key != self._key:
            self._begin(key)
        folded = ending.lower()
        if folded in self._own:
            self._faults[-1] = self._faults[-1] or TWICE
        if kind not in _FILES:
            self._faults[-1] = self._faults[-1] or NO_FILE
        self._own.add(folded)
        self._members.append((offset, size, self._names.setdefault(ending, len(self._names))))
        self._counts[-1] += 1

    def _begin(self, key: str) -> None:
        self._key, self._own = key, set()
        before = self._seen.get(key)
        if before is not None:
            self._faults[before] = SCATTERED  # neither half is a whole sample
        self._seen[key] = len(self._counts)
        self._counts.append(0)
        self._faults.append(OK if before is None else SCATTERED)
        self.keys.append(key.encode("utf-8", "surrogateescape"))

    def columns(self, number: int) -> tuple[np.ndarray, ...]:
        """Offsets, sizes and endings of the members; member counts, shard numbers and faults of the samples."""
        members = np.array(self._members, dtype=np.int64).reshape(-1, 3)
        samples = len(self._counts)
        return (
            members[:, 0].copy(), members[:, 1].copy(), members[:, 2].astype(np.int32), np.array(self._counts, dtype=np.int64),
            np.full(samples, number, dtype=np.int32), np.array(self._faults, dtype=np.uint8),
        )  # fmt: skip


def split_name(name: str) -> tuple[str, str]:
    """Key and ending of a member: `a/0001.img1.png` -> (`a/0001`, `img1.png`). The ending is "" for what belongs to no sample."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return (folder + slash + stem, ending) if stem else ("", "")


def members_of(descriptor: int, size: int, path: Path) -> Iterator[tuple[str, bytes, int, int]]:
    """(name, type flag, offset of the body, its size in bytes) of every member but folders; `size` is the file's.

    DataError when a header is damaged, or the file ends before its archive does.
    """
    at, ended = 0, False
    name, body = None, None  # from extra headers, for the member that follows
    while at < size:
        header = os.pread(descriptor, BLOCK_BYTES, at)
        if not header.strip(b"\0"):
            ended, at = True, at + BLOCK_BYTES  # the end; but shards may be joined behind each other, so what follows is looked at
            continue
        if at == 0 and (len(header) < BLOCK_BYTES or any(header.startswith(magic) for magic, _ in _COMPRESSED)):
            raise _no_tar(path, header)
        if len(header) < BLOCK_BYTES:
            raise _truncated(path, at, size)
        ended = False
        length = _checked_size(header, at, path)
        kind, start = header[156:157], at + BLOCK_BYTES
        if body is not None and kind in _FILES:
            length = body
        at = start + (length + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES
        if start + length > size:
            raise _truncated(path, start - BLOCK_BYTES, size)
        if kind == _LONG_NAME or kind in _PAX:
            if length > _LONGEST_EXTRA:
                raise _damaged(path, start - BLOCK_BYTES)
            raw = os.pread(descriptor, length, start)
            if kind == _LONG_NAME:
                name = _text(raw)
            else:
                long, body, sparse = _pax(raw, path, start)
                name = long or name
                if sparse:
                    raise DataError(
                        "it holds a sparse file", reason="bad_tar", where=f"{path} byte {start}", fix="write the shard without `--sparse`"
                    )
            continue
        if kind in (_LONG_LINK, _PAX_GLOBAL, _LABEL):
            continue
        if kind != _FOLDER:
            yield _clean(name if name is not None else _name(header)), kind, start, length
        name, body = None, None
    if not ended:
        raise _truncated(path, size, size)


def _checked_size(header: bytes, at: int, path: Path) -> int:
    """The member's size, once the header's checksum is right."""
    try:
        total = _number(header[148:156])
        length = _number(header[124:136])
    except ValueError:
        total, length = -1, -1
    if total != sum(header) - sum(header[148:156]) + 8 * 32 or length < 0:
        if at == 0:
            raise _no_tar(path, header)
        raise _damaged(path, at)
    return length


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary number where the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    return int(field.strip(b"\0 ") or b"0", 8)


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), header[345:500]
    return f"{_text(prefix)}/{name}" if header[257:263] == b"ustar\0" and prefix[0] else name


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _clean(name: str) -> str:
    while name.startswith("./"):
        name = name[2:]
    return name


def _pax(raw: bytes, path: Path, start: int) -> tuple[str | None, int | None, bool]:
    """Path and size that the records (`27 path=...\\n`) of a pax header give, and whether the member is a sparse file."""
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(raw) and raw[at] != 0:
        length, space, _ = raw[at : at + 20].partition(b" ")
        if not space or not length.isdigit() or not at < at + int(length) <= len(raw):
            raise _damaged(path, start + at)
        key, _, value = raw[at + len(length) + 1 : at + int(length) - 1].partition(b"=")
        fields[key] = value
        at += int(length)
    size = fields.get(b"size")
    if size is not None and not size.isdigit():
        raise _damaged(path, start)
    name = fields.get(b"path")
    return (
        None if name is None else name.decode("utf-8", "surrogateescape"), None if size is None else int(size),
        any(key.startswith(b"GNU.sparse") for key in fields),
    )  # fmt: skip


def _no_tar(path: Path, header: bytes) -> DataError:
    packed = next((name for magic, name in _COMPRESSED if header.startswith(magic)), None)
    if packed:
        return DataError(
            f"it is packed with {packed}, and a member of it can't be read without all before it", reason="bad_tar", where=str(path),
            fix="unpack it to a plain .tar",
        )  # fmt: skip
    return DataError("it is no tar archive", reason="bad_tar", where=str(path), fix="give plain .tar files")


def _damaged(path: Path, at: int) -> DataError:
    return DataError("the header here is damaged", reason="bad_tar", where=f"{path} byte {at}", fix="write or download the shard again")


def _truncated(path: Path, at: int, size: int) -> DataError:
    what = "it ends without the mark of an end" if at == size else f"the member here is not whole; the file ends at byte {size}"
    fix = "write or download the shard again"
    if at == size:
        fix += f"; if it is whole all the same, add the mark: `head -c 1024 /dev/zero >> {path.name}`"
    return DataError(what, reason="tar_truncated", where=f"{path} byte {at}", fix=fix)
