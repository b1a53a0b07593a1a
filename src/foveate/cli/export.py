"""`foveate export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from foveate.cli.recipe import allow_code_option, overrides_argument
from foveate.cli.sizes import size_bytes

if TYPE_CHECKING:
    from foveate.run.certificate import Figures

_ALIKE = 0.95  # share of likeliest tokens on which two models are called alike


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@overrides_argument
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write [default: RUN/export].")
@click.option("--checkpoint", metavar="STEP|best|last", help="Of a checkpoint instead of the final model.")
@click.option("--merge/--no-merge", default=None, help="Put adapters into the weights, or keep them by themselves [default: --merge].")
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto", show_default=True,
    help="Of the written weights; auto keeps that of the base weights in the run.",
)  # fmt: skip
@click.option("--max-shard-size", help="Begin a new weights file when one has this many bytes [default: 5GB].")
@click.option(
    "--samples", type=click.IntRange(min=1), default=8, show_default=True,
    help="Records that the models are compared on: held-out ones, or training records where there are none.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace an output of this command.")
@allow_code_option
def command(
    run: Path, overrides: tuple[str, ...], out: Path | None, checkpoint: str | None, merge: bool | None, dtype: str,
    max_shard_size: str | None, samples: int, overwrite: bool, allow_code: bool,
) -> int:  # fmt: skip
    """Write the model of RUN, a run's folder, as a Hugging Face folder: weights, processor, model card, parity certificate.

    Adapters are merged. The folder is loaded again and compared with the model that was trained before it takes its place; where they
    differ, nothing is written. OVERRIDES say where things lie now: model.id=PLACE, data.eval=[...], train.device=cpu.
    """
    from foveate.run.run_folder import require_export

    # Before torch is imported, which takes longer than whoever mistyped a name likes to wait.
    place = (out or run / "export").absolute()
    shard_bytes = None if max_shard_size is None else size_bytes(max_shard_size, "--max-shard-size")
    require_export(run, place, overwrite=overwrite)
    from foveate.run.export import Asked, export_run

    asked = Asked(
        run_dir=run,
        out=place,
        checkpoint=checkpoint,
        merge=merge,
        dtype=dtype,
        max_shard_bytes=shard_bytes,
        samples=samples,
        overwrite=overwrite,
        allow_code=allow_code,
        overrides=overrides,
    )
    figures = export_run(asked, lambda line: click.echo(line, err=True))
    _print(figures, asked.out)
    return 0


def _print(figures: Figures, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from foveate.report.model_card import allowed
    from foveate.report.text import number, percent

    table = Table("compared", "largest difference", "allowed", "same likeliest token")
    named = {
        "merged / adapters": figures.merged,
        "written / trained": figures.written,
        "written / merged": figures.written_merged,
        "plain base / quantised base": figures.quantised,
    }
    for name, found in named.items():
        if found is not None:
            table.add_row(name, number(found.largest), allowed(found.tolerance), percent(found.agreement))
    Console().print(table)
    click.echo(f"largest logit {number(figures.largest_logit)}; {figures.records} records, {figures.positions} positions")
    if figures.tuning_effect is not None:
        click.echo(f"the tuning changes logits by up to {number(figures.tuning_effect)}")
    if figures.quantised is not None and figures.quantised.agreement < _ALIKE:
        click.echo(
            f"! on the plain base {percent(1 - figures.quantised.agreement)} of the likeliest tokens are others than in the run, "
            "whose base was quantised: measure the export with `foveate eval` before you use it"
        )
    click.echo(f"{figures.tensors} tensors load back bit for bit; the written processor encodes all records alike")
    click.echo(f"model: {out}")
    held = "the recipe with this machine's paths and, as an example, a question of the training data"
    click.echo(f"its card holds {held}: read README.md before you publish it")
