"""`foveate check`: everything about a recipe that can be known before weights load, each finding with its state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from foveate.config.recipe import Recipe
from foveate.config.rules import recipe_notes
from foveate.data.ledger import Ledger
from foveate.data.mixture import Mixture
from foveate.encode.encoder import Encoder
from foveate.errors import FoveateError
from foveate.events import Quarantined
from foveate.model.families import Family, family_of
from foveate.model.load import resolve_id
from foveate.run.checks import machine
from foveate.run.checks.answers import check_answers
from foveate.run.checks.findings import Checked, SplitCheck, counted
from foveate.run.checks.leakage import find_leakage, note_duplicates, note_leakage
from foveate.run.checks.records import BAD, UNCHECKED, USABLE, Scanned, scan_split
from foveate.run.checks.tokens import sum_up
from foveate.run.pool import Killed
from foveate.run.prepare import load_encoder, open_records, shares_rows, user_functions

T = TypeVar("T")
Progress = Callable[[str, int, int], None]  # what, done, in all
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How far a check goes."""

    decode: bool = False  # every pixel and sample, not only headers
    pictures: bool = True  # compare held-out pictures with training pictures, if there are any
    workers: int = 1  # processes that read records
    ranks: int = 1  # processes that training will have
    allow_code: bool = False
    folder: Path | None = None  # the run's; not looked at when None


def check(recipe: Recipe, options: Options, *, progress: Progress) -> Checked:
    """Check a recipe without weights. Nothing is raised for what a finding can say."""
    result = Checked()
    machine.check_packages(result, recipe)
    device = machine.training_device(result, recipe)
    mixtures = _open_splits(result, recipe, options)
    reachable = Path(resolve_id(recipe.model)).is_dir() or not recipe.model.offline
    loaded = _try(result, "model", lambda: load_encoder(recipe), reachable=reachable)
    encoder, family = (loaded[2], family_of(loaded[0])) if loaded else (None, Family())
    model = None
    if loaded:
        result.add("ok", "model", f"{recipe.model.id}: processor and chat template load")
        model = machine.build_skeleton(result, recipe, family, encoder, loaded[3])
    scanned = {
        split: found for split, mixture in mixtures.items() if (found := _scan(result, recipe, mixture, split, encoder, options, progress))
    }
    for found in scanned.values():
        _say_read(result, found)
        sum_up(result, recipe, found, encoder, packs=shares_rows(recipe, family), alone=family.alone)
        note_duplicates(result, found)
    _check_limit(result, recipe)
    if len(scanned) == 2:
        note_leakage(result, find_leakage(scanned["train"], scanned["eval"], pictures=options.pictures, rules=recipe.media))
    if encoder is not None and "eval" in scanned:
        check_answers(result, recipe, scanned["eval"], encoder)
    if "train" in scanned and not result.splits["train"].unchecked:  # else nobody knows how many are usable
        machine.check_ranks(result, recipe, result.splits["train"].usable, options.ranks)
    if encoder is not None and model is not None and "train" in scanned:
        machine.predict(result, recipe, model, scanned["train"], encoder, family, device, options.ranks)
    if options.folder is not None:
        machine.check_folder(result, recipe, options.folder, model)
    told = {
        "recipe": recipe_notes(recipe),
        "template": encoder.notes if encoder else (),
        "model.add_tokens": loaded[3].notes if loaded else (),
    }
    for about, notes in told.items():
        for note in notes:
            result.add("note", about, note)
    if loaded and encoder is None:
        result.add("unknown", "labels", "data.collate makes the batches: token counts, labels, memory and time are its own affair")
    if mixtures and loaded is None:
        result.add("unknown", "labels", "token counts, labels, memory and time need the model's configuration and processor")
    return result


def first_bad(splits: Sequence[SplitCheck], most: int) -> list[Quarantined]:
    """The first bad records of all splits."""
    return [bad for split in splits for bad in split.bad][:most]


def _open_splits(result: Checked, recipe: Recipe, options: Options) -> dict[str, Mixture]:
    functions = _try(result, "your code", lambda: user_functions(recipe, allow_code=options.allow_code), reachable=True)
    mixtures: dict[str, Mixture] = {}
    for split in ("train", "eval") if functions is not None else ():
        sections = recipe.data.train if split == "train" else recipe.data.eval
        reachable = all(section.path is not None for section in sections) or not recipe.model.offline
        mixture = _try(result, f"data.{split}", lambda split=split: open_records(recipe, split, functions), reachable=reachable)
        if mixture is not None:
            mixtures[split] = mixture
            for line in mixture.describe():
                result.add("ok", f"data.{split}", line)
    return mixtures


def _try(result: Checked, about: str, work: Callable[[], T], *, reachable: bool) -> T | None:
    try:
        return work()
    except FoveateError as error:
        result.add("bad" if reachable else "unknown", about, str(error))
        return None


def _scan(
    result: Checked, recipe: Recipe, mixture: Mixture, split: str, encoder: Encoder | None, options: Options, progress: Progress
) -> Scanned | None:
    try:
        return scan_split(
            mixture,
            split,
            encoder=encoder,
            max_tokens=recipe.batch.max_tokens,
            max_patches=recipe.batch.max_patches,
            rules=recipe.media,
            decode=options.decode,
            pictures=options.pictures and bool(recipe.data.eval),
            workers=options.workers,
            progress=lambda done, total: progress(f"reading {split}", done, total),
        )
    except Killed as error:
        result.add("bad", f"data.{split}", f"{mixture.origin(error.place)}: {error.problem} while reading it; {error.fix}")
        return None


def _say_read(result: Checked, scanned: Scanned) -> None:
    """What was read, what is bad and why, how far labels were proven."""
    about, verdicts = f"data.{scanned.split}", scanned.verdicts
    found = result.splits[scanned.split] = SplitCheck(
        read=len(verdicts),
        usable=int((verdicts == USABLE).sum()),
        unchecked=int((verdicts == UNCHECKED).sum()),
        bad=[bad for _, bad in scanned.bad],
        reasons=dict(Counter(bad.reason for _, bad in scanned.bad).most_common()),
        wrong_suffix=scanned.wrong_suffix,
        encoded=scanned.encoded,
        encoded_tokens=scanned.encoded_tokens,
        supervised_tokens=scanned.supervised_tokens,
    )
    bad = int((verdicts == BAD).sum())
    why = f" ({', '.join(f'{reason} {count:,}' for reason, count in found.reasons.items())})" if bad else ""
    rest = f" + {found.unchecked:,} unchecked" if found.unchecked else ""
    state = "bad" if found.unchecked else "ok"
    result.add(state, about, f"{counted(found.read, 'record')} read = {found.usable:,} usable + {bad:,} bad{rest}{why}")
    for (problem, fix), (count, first) in scanned.failures.items():
        others = f" (and {counted(count - 1, 'more record')})" if count > 1 else ""
        result.add("bad", about, f"{first}: {problem}{'; ' + fix if fix else ''}{others}")
    if found.read == bad:
        result.add("bad", about, "no record can be used")
    if found.wrong_suffix:
        result.add("note", about, f"{found.wrong_suffix:,} media have a suffix of another format; their content decides")
    if scanned.undecoded:
        shown = "; ".join(scanned.undecoded[:_EXAMPLES])
        result.add(
            "warn",
            about,
            f"{len(scanned.undecoded):,} images have a whole header but damaged pixels (--decode counts them as bad): {shown}",
        )
    if found.encoded:
        share = 100 * found.supervised_tokens / found.encoded_tokens
        result.add(
            "ok" if found.supervised_tokens else "bad", about,
            f"labels proven on {counted(found.encoded, 'record')}: {found.supervised_tokens:,} of {found.encoded_tokens:,} tokens "
            f"trained ({share:.1f}%){_weights(scanned)}",
        )  # fmt: skip


def _weights(scanned: Scanned) -> str:
    """The weights of trained turns, where any is not 1."""
    low, high = scanned.lightest, scanned.heaviest
    if low == high:
        return f"; every turn has weight {low:g}" if low != 1 else ""
    return f"; weights {low:g} to {high:g}" if low < high else ""


def _check_limit(result: Checked, recipe: Recipe) -> None:
    read, bad = (sum(values) for values in zip((0, 0), *((found.read, len(found.bad)) for found in result.splits.values()), strict=True))
    limit = Ledger(None, recipe.data.max_bad).limit(read)
    if bad > limit:
        result.add("bad", "data", f"{bad:,} bad records, and data.max_bad = {recipe.data.max_bad} allows {limit:,}")
