"""`foveate init`."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foveate.errors import FoveateError
from foveate.types import Text, kind_of

if TYPE_CHECKING:
    from foveate.config.data import SourceSection
    from foveate.run.init import Survey

_CHECKED = 20_000  # records up to which the recipe is checked on the spot
_TINY = "foveate:tiny"


@click.command()
@click.argument("data", metavar="DATA")
@click.option("--output", type=click.Path(path_type=Path), default=Path("recipe.yaml"), show_default=True, help="The recipe to write.")
@click.option("--model", help="Hub id or local folder [default: asked, else a small one that takes the media, else foveate:tiny].")
@click.option("--split", help="Split, with an optional slice: train, train[:1000].")
@click.option("--name", help="A hub data set's configuration.")
@click.option("--format", "form", help="The records' format, where it can't be told from the columns.")
@click.option("--column", "columns", multiple=True, metavar="ROLE=COLUMN", help="A role's column, e.g. answer=finding; repeatable.")
@click.option("--prompt", help="The user's turn where the data has none.")
@click.option("--media-root", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of relative media paths.")
@click.option("--offline", is_flag=True, help="Ask no network.")
@click.option("--overwrite", is_flag=True, help="Replace the recipe if it is there.")
@click.option("--yes", is_flag=True, help="Ask nothing; take what is proposed.")
def command(
    data: str, output: Path, model: str | None, split: str | None, name: str | None, form: str | None, columns: tuple[str, ...],
    prompt: str | None, media_root: Path | None, offline: bool, overwrite: bool, yes: bool,
) -> int:  # fmt: skip
    """Look at DATA (a file, a folder, a hub data set or a named set) and write a recipe that trains on it.

    Exit codes: 0 the recipe is written and passes `foveate check` (which is left to you above 20,000 records), 2 it is not, or does not.
    """
    if output.exists() and not overwrite:
        raise FoveateError("is there already", where=str(output), fix="name another one with --output, or add --overwrite")
    if not output.absolute().parent.is_dir():
        raise FoveateError("no such folder", where=str(output.absolute().parent), fix="make it, or name another --output")
    fields = {"split": split, "name": name, "format": form, "prompt": prompt, "columns": _pairs(columns)}
    fields["media_root"] = str(media_root.absolute()) if media_root else None
    section = _section(data, {key: value for key, value in fields.items() if value})
    from foveate.run.init import survey

    found = survey(section, offline=offline)
    _say(found)
    if not found.usable:
        raise FoveateError(
            f"none of the {found.looked:,} records looked at can be used: {found.bad[0].origin}: {found.bad[0].problem}",
            where=data, fix=found.bad[0].fix,
        )  # fmt: skip
    asks = sys.stdin.isatty() and not yes
    chosen = model or _choose_model(found, offline=offline, asks=asks)
    _write(found, output, chosen, offline=offline, typed=data)
    click.echo(f"wrote {output}")
    return _check(output, found)


def _section(data: str, fields: dict[str, object]) -> SourceSection:
    """DATA as a source: an existing path, a named set, or a hub data set `owner/name`."""
    from pydantic import ValidationError

    from foveate.config.data import SourceSection
    from foveate.data.adapters.named import NAMED

    path = Path(data)
    if path.exists() or "/" not in data.strip("/") or data.startswith((".", "/", "~")) or path.suffix:
        key = {"use": data} if data in NAMED and not path.exists() else {"path": str(path.absolute())}
    else:
        key = {"hub": data}
    try:
        return SourceSection(**key, **fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise FoveateError(first["msg"], where=f"--{'.'.join(map(str, first['loc']))}", fix="see `foveate init --help`") from None


def _pairs(columns: tuple[str, ...]) -> dict[str, str]:
    pairs = [column.partition("=") for column in columns]
    wrong = next((role for role, sign, column in pairs if not (role and sign and column)), None)
    if wrong is not None:
        raise FoveateError(f"{wrong!r} is not ROLE=COLUMN", where="--column", fix="write e.g. --column answer=finding")
    return {role: column for role, _, column in pairs}


def _say(found: Survey) -> None:
    """What was seen, line by line."""
    for line in found.mixture.describe():
        click.echo(line)
    media = " and ".join(sorted(found.kinds)) or "text only"
    click.echo(f"looked at {found.looked:,} records: {len(found.usable):,} usable, {len(found.bad):,} bad; {media}")
    if found.pixels:
        middle = statistics.median(found.pixels)
        click.echo(f"images: {len(found.pixels):,}, median {middle / 1e6:.2f} megapixels, largest {max(found.pixels) / 1e6:.2f}")
    for line in found.bad[:3]:
        click.echo(f"  bad: {line.origin}: {line.reason}: {line.problem}" + (f"; {line.fix}" if line.fix else ""))
    first = found.usable[0] if found.usable else None
    for message in first.messages if first else ():
        shown = "".join(f"<{kind_of(part)}>" for part in message.parts if not isinstance(part, Text))
        click.echo(f"  {message.role}: {shown}{message.text[:200]}")


def _choose_model(found: Survey, *, offline: bool, asks: bool) -> str:
    """The proposed model where it can be reached; else the one that ships, where it can take the media at all."""
    from foveate.config.model import ModelSection
    from foveate.model.load import load_config
    from foveate.run.init import default_model

    proposed = default_model(found.kinds)
    if asks:
        return click.prompt("model", default=proposed)
    try:
        load_config(ModelSection(id=proposed, offline=offline))
    except FoveateError:
        if found.kinds <= {"image"}:
            click.echo(f"{proposed} can't be reached: the recipe names {_TINY}, which ships with Foveate")
            return _TINY
    return proposed


def _write(found: Survey, output: Path, model: str, *, offline: bool, typed: str) -> None:
    from foveate.config.dump import dump_values
    from foveate.run.init import draft, relative

    made = draft(found, model=model, offline=offline)
    folder = output.absolute().parent
    for split in ("train", "eval"):
        if split in made.values["data"]:
            made.values["data"][split] = [relative(section, folder) for section in made.values["data"][split]]
    head = [
        f"# foveate train {output}",
        "#",
        f"# Written by `foveate init {typed}` from what {found.looked:,} of {found.mixture.records:,} records show. Format: {found.form}.",
        "# Every key: docs/recipe.md, or `foveate schema`.",
    ]
    output.write_text("\n".join(head) + "\n" + dump_values(made.values, made.comments), encoding="utf-8")


def _check(output: Path, found: Survey) -> int:
    """Check the recipe as it stands, where that takes a moment only."""
    if found.mixture.records > _CHECKED:
        click.echo(f"now: foveate check {output}")
        return 0
    from foveate.cli.main import main

    return main(["check", str(output)])
