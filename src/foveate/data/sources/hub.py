"""Hugging Face data sets through `datasets`: memory-mapped Arrow, media left as bytes or paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from foveate.config.suggest import listed
from foveate.data.files import combine, fingerprint_file, needs_package
from foveate.errors import DataError
from foveate.types import Origin, Row

if TYPE_CHECKING:
    from datasets import Dataset


class HubSource:
    """Rows of one split. Built by `open_hub`, or by `open_saved` from a folder that `save_to_disk` wrote."""

    def __init__(self, *, name: str, repository: str, rows: Dataset) -> None:
        """`rows`: the split in Arrow format, so that reading a row decodes no image, sound or clip."""
        self.name, self.root, self._repository, self._rows = name, None, repository, rows
        self.columns = tuple(rows.column_names)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        """The row as plain Python values; media as {"bytes": ..., "path": ...}."""
        return self._rows[index : index + 1].to_pylist()[0]

    def origin(self, index: int) -> Origin:
        """Names the row by its 0-based number within the split (after its slice)."""
        return Origin(dataset=self.name, file=self._repository, row=int(index))

    def features(self) -> dict[str, Any]:
        """The columns' types as `datasets` writes them into files, the names of classes among them."""
        return self._rows.features.to_dict()

    def fingerprint(self) -> str:
        """Hash of the features, the number of rows and the content of the Arrow files."""
        files = [fingerprint_file(Path(file["filename"])) for file in self._rows.cache_files]
        return combine([str(sorted(self._rows.features.items(), key=lambda item: item[0])), str(len(self)), *files])


def open_hub(repository: str, name: str, *, config: str | None, split: str | None, revision: str | None, offline: bool) -> HubSource:
    """Load a split by `datasets.load_dataset`. DataError names the repository and what to do when it can't be had."""
    where = f"{repository}@{revision}" if revision else repository
    with hub_errors(where, offline=offline):
        loaded = load_datasets().load_dataset(repository, config, split=split or None, revision=revision)
    if split is None and len(loaded) > 1:
        raise DataError(
            f"it has several splits: {listed(f'{key} ({len(rows):,} rows)' for key, rows in loaded.items())}",
            reason="bad_split", where=where, fix="name one with `split:`",
        )  # fmt: skip
    rows = loaded if split else next(iter(loaded.values()))
    return HubSource(name=name, repository=repository, rows=rows.with_format("arrow"))


@contextmanager
def hub_errors(where: str, *, offline: bool) -> Iterator[None]:
    """What `datasets` raises inside the block becomes a DataError about `where`; with `offline`, the network is left alone."""
    datasets = load_datasets()
    import pyarrow as pa

    kinds = datasets.exceptions
    offline = offline or datasets.config.HF_HUB_OFFLINE
    try:
        with _network(datasets, offline=offline):
            yield
    except (kinds.DatasetNotFoundError, ConnectionError) as error:
        raise _absent(where, error, offline) from None
    except (FileNotFoundError, kinds.DatasetsError, RuntimeError) as error:
        if offline or "on the Hugging Face Hub" in str(error):
            raise _absent(where, error, offline) from None
        raise _failed(where, error) from None
    except (OSError, EOFError, pa.ArrowException) as error:  # a file is damaged, or the line breaks
        raise _failed(where, error) from None
    except ValueError as error:  # an unknown split or configuration, or nothing in the cache
        if "find cache for" in str(error):
            raise _absent(where, error, offline) from None
        raise DataError(
            f"can't be loaded: {_first_line(error)}", reason="bad_split", where=where, fix="change `split:` or `name:`"
        ) from None


def open_saved(path: str, name: str, split: str) -> HubSource:
    """Load a folder written by `save_to_disk`; `split` chooses one of a DatasetDict."""
    datasets = load_datasets()
    try:
        loaded = datasets.load_from_disk(path)
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"can't be loaded: {_first_line(error)}", reason="source_unreadable", where=path, fix="save it again") from None
    if not isinstance(loaded, datasets.DatasetDict):
        return HubSource(name=name, repository=path, rows=loaded.with_format("arrow"))
    if split not in loaded:
        raise DataError(f"it has the splits {listed(loaded)}", reason="bad_split", where=path, fix="name one with `split:`")
    return HubSource(name=name, repository=path, rows=loaded[split].with_format("arrow"))


def load_datasets() -> ModuleType:
    """The package `datasets`; FoveateError naming the extra when it is missing."""
    try:
        import datasets
    except ImportError:
        raise needs_package("datasets", "hub", "loading a data set from the Hugging Face hub") from None
    return datasets


@contextmanager
def _network(datasets: ModuleType, *, offline: bool) -> Iterator[None]:
    """Switches the hub off inside the block: `DownloadConfig(local_files_only=True)` alone still asks it for the README."""
    before = datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = offline or before
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _absent(where: str, error: Exception, offline: bool) -> DataError:
    text = _first_line(error)
    if "gated" in text.lower():
        return DataError(
            "the data set is gated", reason="hub_gated", where=where,
            fix=f"accept its terms at https://huggingface.co/datasets/{where.split('@')[0]} and run `hf auth login`",
        )  # fmt: skip
    if offline:
        return DataError(
            "offline, and not in the local cache", reason="hub_offline", where=where,
            fix=f"fetch it where there is a network (`hf download --repo-type dataset {where.split('@')[0]}`), or give local files of its "
            f"schema with `path:`; the cache is {os.environ.get('HF_HOME', '~/.cache/huggingface')}",
        )  # fmt: skip
    return DataError(
        f"can't be had: {text}", reason="hub_missing", where=where,
        fix="check the name and the network; private sets need `hf auth login`; local files of its schema work with `path:`",
    )  # fmt: skip


def _failed(where: str, error: Exception) -> DataError:
    return DataError(
        f"can't be loaded: {_first_line(error)}", reason="hub_failed", where=where, fix="check `hub:`, `name:` and `revision:`"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
