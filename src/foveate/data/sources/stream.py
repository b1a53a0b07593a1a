"""A hub data set read as it arrives: the one source without random access. Its order is that of the repository's files.

Records are held a window at a time and the plan shuffles inside windows (see batching/plan.py), so which records make step k follows
from k alone, as everywhere: resuming opens the stream at that step's window. Nothing else is saved.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from foveate.config.data import SourceSection
from foveate.data.files import combine
from foveate.data.sources.hub import hub_errors, load_datasets
from foveate.data.sources.slices import parse_split
from foveate.errors import DataError, FoveateError
from foveate.types import Origin, Row

if TYPE_CHECKING:
    from datasets import IterableDataset

_AHEAD = 2  # windows held: a step may lie across the border of two


class StreamSource:
    """Records of a stream by number, cheap only inside the newest windows: going back opens the stream anew. Built by `open_stream`."""

    def __init__(
        self, *, name: str, repository: str, load: dict[str, str | None], first: int, length: int, window: int, columns: tuple[str, ...],
        files: tuple[str, ...],
    ) -> None:  # fmt: skip
        """`load`: arguments of `datasets.load_dataset`; `first`: records passed over; `length`: records that count; `window`: records
        that are held at a time; `files`: what names the repository's content."""
        self.name, self.root, self.columns, self.window = name, None, columns, window
        self._repository, self._load, self._first, self._length, self._files = repository, load, first, length, files
        self._forget()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Row:
        """The row. FoveateError, which stops the run, when the stream breaks or ends before it."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        if self._process != os.getpid():
            self._forget()  # a forked child shares no connection with its parent
        if self._rows is None or index < self._begin:
            self._open(index - index % self.window)
        while index >= self._begin + len(self._held):
            self._held.append(self._next())
            if len(self._held) > _AHEAD * self.window:
                del self._held[: self.window]
                self._begin += self.window
        return self._held[index - self._begin]

    def origin(self, index: int) -> Origin:
        """Names the row by its 0-based number in the stream."""
        return Origin(dataset=self.name, file=self._repository, row=int(index) + self._first)

    def fingerprint(self) -> str:
        """Hash of the repository's files as the hub names them, and of what is read of them."""
        return combine([self._repository, *self._files, f"{self._first}:{self._length}:{self.window}"])

    def __getstate__(self) -> dict:
        return {key: value for key, value in vars(self).items() if key not in ("_rows", "_held")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._forget()

    def _forget(self) -> None:
        self._process, self._begin = os.getpid(), 0
        self._held: list[Row] = []
        self._rows: Iterator[Row] | None = None

    def _open(self, index: int) -> None:
        rows = _load(self._load, self._repository)
        with hub_errors(self._repository, offline=False):
            self._rows = _plain_rows(rows.skip(self._first + index))
        self._begin, self._held = index, []

    def _next(self) -> Row:
        at = self._begin + len(self._held)
        try:
            with hub_errors(self._repository, offline=False):
                row = next(self._rows, None)
        except DataError as error:  # no record's fault: quarantining one would hide it
            raise FoveateError(
                f"the stream broke at record {self._first + at} or soon after: {error.problem}", where=self._repository,
                fix="see to the network and go on with `--resume`",
            ) from error  # fmt: skip
        if row is None:
            # Passing records over does not tell how many there were.
            fix = f"set `limit: {at}`" if self._held else "set a smaller `limit:`"
            raise FoveateError(f"the stream ended before record {at:,} of {self._length:,}", where=self._repository, fix=fix)
        return row


def open_stream(section: SourceSection, repository: str, name: str, *, config: str | None, offline: bool) -> StreamSource:
    """Open a hub data set for streaming. DataError when it can't be had, or neither `limit` nor the repository says how long it is."""
    if offline and not os.path.isdir(repository):
        raise DataError("offline, and a stream needs the network", reason="hub_offline", where=repository, fix="drop `streaming`")
    split, limit = parse_split(section.split, repository), section.limit
    if not split.name:
        raise DataError("a stream needs its split", reason="bad_split", where=repository, fix="write e.g. `split: train`")
    if "%" in split.text or "-" in split.start + split.stop:
        raise DataError(
            f"a stream's slice can't be {split.text.removeprefix(split.name)!r}: its length is not known", reason="bad_split",
            where=repository, fix="count from the beginning, e.g. `train[1000:]`",
        )  # fmt: skip
    load = {"path": repository, "name": config, "split": split.name, "revision": section.revision}
    rows = _load(load, repository)
    known = rows.info.splits[split.name].num_examples if rows.info.splits and split.name in rows.info.splits else None
    bounds = split.bounds(known if known is not None else int(split.stop or 0) or (int(split.start or 0) + (limit or 0)))
    length = min(bounds[1] - bounds[0], limit) if limit is not None else bounds[1] - bounds[0]
    if length == 0 and known is None:
        raise DataError("the repository does not say how many records it has", reason="stream_length", where=repository, fix="set `limit:`")
    with hub_errors(repository, offline=False):
        columns = tuple(rows.column_names or next(iter(rows)))
    return StreamSource(
        name=name,
        repository=repository,
        load=load,
        first=bounds[0],
        length=length,
        window=section.shuffle_buffer,
        columns=columns,
        files=_files(load),
    )


def _load(load: dict[str, str | None], repository: str) -> IterableDataset:
    datasets = load_datasets()
    with hub_errors(repository, offline=False):
        return datasets.load_dataset(**load, streaming=True)


def _plain_rows(rows: IterableDataset) -> Iterator[Row]:
    """Rows as plain Python values, media left encoded as {"bytes", "path"}."""
    for table in rows.with_format("arrow").iter(batch_size=16):
        yield from table.to_pylist()


def _files(load: dict[str, str | None]) -> tuple[str, ...]:
    """The files behind a split, each with what the hub (or the disk) knows it by."""
    datasets = load_datasets()
    with hub_errors(str(load["path"]), offline=False):
        builder = datasets.load_dataset_builder(load["path"], load["name"], revision=load["revision"])
    found = (builder.config.data_files or {}).get(load["split"])
    if found is None:
        return (builder.hash or "",)
    return tuple(f"{os.path.basename(str(file))}:{mark}" for file, mark in zip(found, found.origin_metadata, strict=True))
