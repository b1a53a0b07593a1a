"""`foveate preview`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from foveate.cli.recipe import allow_code_option, overrides_argument, read_recipe, recipe_argument, require_way
from foveate.errors import FoveateError

if TYPE_CHECKING:
    from foveate.data.mixture import Mixture
    from foveate.events import Quarantined
    from foveate.report.preview import PreviewSample
    from foveate.run.prepare import Prepared


@click.command()
@recipe_argument
@overrides_argument
@click.option("--samples", type=click.IntRange(min=1), default=12, show_default=True, help="Records of each split, spread evenly over it.")
@click.option(
    "--row", "rows", type=click.IntRange(min=0), multiple=True, help="These places of the training data instead; may be repeated."
)
@click.option("--output", type=click.Path(path_type=Path), help="The page [default: ./preview-<recipe>.html].")
@click.option("--offline", is_flag=True, help="Ask no network.")
@allow_code_option
def command(
    recipe: Path, overrides: tuple[str, ...], samples: int, rows: tuple[int, ...], output: Path | None, offline: bool, allow_code: bool
) -> int:
    """Write a page that shows samples of RECIPE as the model gets them: pixels, and tokens coloured by whether they are trained on.

    No weights are loaded. Exit codes: 0 done, 2 when no record could be shown.
    """
    loaded = read_recipe(recipe, (*overrides, *(["model.offline=true"] if offline else [])))
    page = output or Path(f"preview-{recipe.stem}.html")
    require_way(page.parent)
    if page.is_dir():
        raise FoveateError("is a folder", where=f"--output: {page}", fix=f"name the page: {page / 'preview.html'}")
    from foveate.report.preview import write_preview
    from foveate.run.prepare import prepare

    prepared = prepare(loaded, allow_code=allow_code)
    if prepared.encoder is None:
        raise FoveateError(
            "a user's collate function makes the batches, so there is no encoding of Foveate's to show",
            where=f"{recipe}: data.collate",
            fix="look at what your function returns, or take data.collate out",
        )
    shown, rejected = _gather(prepared, samples, rows)
    notes = (*prepared.notes(), *prepared.encoder.notes)
    page = write_preview(shown, page, title=recipe.stem, notes=notes, rejected=rejected)
    click.echo(f"{len(shown)} samples shown, {len(rejected)} records can't be used: {page.absolute()}")
    return 0 if shown else 2


def _gather(prepared: Prepared, samples: int, rows: tuple[int, ...]) -> tuple[list[PreviewSample], list[Quarantined]]:
    """(samples to show, records that can't be used), training data first."""
    from foveate.data.scan import quarantined
    from foveate.errors import DataError

    shown, rejected = [], []
    for split, mixture in (("train", prepared.train), ("eval", prepared.eval)):
        if mixture is None or (rows and split == "eval"):
            continue
        for place in _chosen(mixture, rows) if rows else _spread(mixture, samples):
            try:
                shown.append(_sample(prepared, mixture, place, split))
            except DataError as error:
                rejected.append(quarantined(error, mixture.origin(place), split))
    return shown, rejected


def _sample(prepared: Prepared, mixture: Mixture, place: int, split: str) -> PreviewSample:
    """Raises DataError for a record that training would quarantine."""
    from foveate.batching.lengths import require_fit
    from foveate.evaluate.samples import preview_sample

    conversation = mixture.conversation(place)
    batch = prepared.recipe.batch
    require_fit(conversation, prepared.encoder.length(conversation), max_tokens=batch.max_tokens, max_patches=batch.max_patches)
    example = prepared.encoder(conversation)
    return preview_sample(conversation, example, prepared.processor, split=split, rules=prepared.recipe.media)


def _chosen(mixture: Mixture, rows: tuple[int, ...]) -> tuple[int, ...]:
    beyond = next((row for row in rows if row >= len(mixture)), None)
    if beyond is not None:
        raise FoveateError(
            f"there is no place {beyond}: the training data have {len(mixture)}", where="--row", fix=f"0 to {len(mixture) - 1}"
        )
    return rows


def _spread(mixture: Mixture, samples: int) -> list[int]:
    """At most `samples` places, evenly spread over the distinct records."""
    from foveate.data.mixture import evenly

    places = list(mixture.first(None))
    return [places[i] for i in evenly(len(places), samples)]
