"""`foveate convert`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foveate.cli.progress import Bars
from foveate.cli.recipe import allow_code_option, overrides_argument, read_recipe
from foveate.cli.sizes import size_bytes
from foveate.errors import FoveateError

if TYPE_CHECKING:
    from foveate.data.convert import Converted
    from foveate.data.mixture import Mixture

_RECIPES = (".yaml", ".yml")
_SHARE = re.compile(r"\s*(\d+|(\d{1,2}(\.\d+)?|100)\s*%)\s*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@click.command()
@click.argument("source", metavar="SOURCE")
@overrides_argument
@click.option("--to", type=click.Choice(["parquet", "webdataset"]), required=True, help="Parquet files, or WebDataset tar shards.")
@click.option("--output", "out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option("--split", help="Of a recipe: train or eval [default: train]. Of a path: as `split:` in a recipe.")
@click.option("--source", "number", type=click.IntRange(min=1), help="Of a recipe with several sources in the split: this one only.")
@click.option("--shard-size", default="500MB", show_default=True, help="Begin a new file when one has this many bytes.")
@click.option("--records-per-shard", type=click.IntRange(min=1), help="Begin a new file after this many records, whatever its size.")
@click.option("--name", help="Of the files; tells their split [default: train, or eval].")
@click.option("--max-bad", default="0", show_default=True, help='Records tolerated that can\'t be used: a count, or a share such as "1%".')
@click.option("--overwrite", is_flag=True, help="Replace an output of this command.")
@allow_code_option
def command(
    source: str, overrides: tuple[str, ...], to: str, out: Path, split: str | None, number: int | None, shard_size: str,
    records_per_shard: int | None, name: str | None, max_bad: str, overwrite: bool, allow_code: bool,
) -> int:  # fmt: skip
    """Write SOURCE (a recipe, or data by path) as Parquet or WebDataset shards with the media inside, for clusters.

    Media are copied byte by byte. Records that can't be used are listed in OUT.quarantine.jsonl. The output is read again and compared
    with the source, record by record, before it takes its place.
    """
    name = name or ("eval" if split == "eval" else "train")
    if _NAME.fullmatch(name) is None:
        raise FoveateError(f"{name!r} is no name for files", where="--name", fix="use letters, digits, `-` and `_`")
    from foveate import __version__
    from foveate.data.convert import Conversion, convert

    asked = Conversion(
        to="parquet" if to == "parquet" else "webdataset", out=Path(os.path.abspath(out)), name=name,
        max_bytes=None if records_per_shard else size_bytes(shard_size, "--shard-size"), max_records=records_per_shard,
        max_bad=_tolerated(max_bad), overwrite=overwrite,
    )  # fmt: skip
    mixture = _open(source, overrides, split, number, allow_code)
    for line in mixture.describe():
        click.echo(line)
    with Bars() as progress:
        done = convert(mixture, asked, version=__version__, progress=progress)
    _print(done)
    return 0


def _open(source: str, overrides: tuple[str, ...], split: str | None, number: int | None, allow_code: bool) -> Mixture:
    """The records, each once."""
    if source.lower().endswith(_RECIPES):
        return _open_recipe(Path(source), overrides, split or "train", number, allow_code)
    if overrides:
        raise FoveateError(f"{overrides[0]!r} overrides a recipe, and {source} is none", fix="write a recipe for prompts and columns")
    if number is not None:
        raise FoveateError("a path is one source", where="--source", fix="leave it out")
    from foveate.config.data import SourceSection
    from foveate.data.mixture import build_mixture

    return build_mixture([SourceSection(path=os.path.abspath(os.path.expanduser(source)), split=split)])


def _open_recipe(path: Path, overrides: tuple[str, ...], split: str, number: int | None, allow_code: bool) -> Mixture:
    if split not in ("train", "eval"):
        raise FoveateError(f"a recipe has no split {split!r}", where="--split", fix="write train or eval")
    recipe = read_recipe(path, overrides)
    from foveate.data.convert import unweighted
    from foveate.run.prepare import open_records, user_functions

    chosen = recipe.data.train if split == "train" else recipe.data.eval
    if any(section.weight != 1 or section.count is not None for section in chosen):
        click.echo("each record is written once: weights and counts stay with the recipe")
    sections = [unweighted(section) for section in chosen]
    if number is not None:
        if number > len(sections):
            raise FoveateError(f"`data.{split}` has {len(sections)} sources", where="--source", fix="count from 1")
        sections = [sections[number - 1]]
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={split: sections})})
    mixture = open_records(recipe, "eval" if split == "eval" else "train", user_functions(recipe, allow_code=allow_code))
    if mixture is None:
        raise FoveateError(f"the recipe has no `data.{split}`", where=str(path), fix="choose the other one with --split")
    return mixture


def _tolerated(text: str) -> int | str:
    """A count, or a share as it is written."""
    if _SHARE.fullmatch(text) is None:
        raise FoveateError(f"{text!r} is no count and no share", where="--max-bad", fix='write 10, or "1%"')
    return text if "%" in text else int(text)


def _print(done: Converted) -> None:
    bad = sum(done.bad.values())
    why = f" ({', '.join(f'{reason} {count:,}' for reason, count in done.bad.items())})" if bad else ""
    files = f"{len(done.files):,} file" + ("s" if len(done.files) > 1 else "")
    records = f"{done.read:,} record" + ("s" if done.read != 1 else "")
    click.echo(f"{records} read = {done.written:,} written + {bad:,} quarantined{why}; read again, and equal")
    if bad:
        click.echo(f"the bad records: {done.ledger}")
    click.echo(f"{files} in {done.out}; train on them with `path: {done.out}`")
