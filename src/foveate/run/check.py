"""`foveate check`: everything about a recipe that can be known before weights load, each finding with its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from foveate.batching.lengths import require_fit
from foveate.config.recipe import Recipe
from foveate.config.rules import recipe_notes
from foveate.data.ledger import Ledger
from foveate.data.mixture import Mixture
from foveate.data.overlap import find_overlap
from foveate.data.scan import quarantined, scan
from foveate.encode.encoder import Encoder
from foveate.errors import DataError, FoveateError
from foveate.events import Quarantined
from foveate.model.load import load_skeleton, resolve_id
from foveate.model.loss import IGNORED
from foveate.model.parts import PartRow, parts_table
from foveate.model.tuning import apply_tuning
from foveate.run.prepare import load_encoder, open_records, user_functions
from foveate.train.optim import peak_rates

State = Literal["ok", "bad", "unknown"]
_ENCODED = 200  # records of a split that are encoded in full, pixels and labels
Progress = Callable[[str, int, int], None]  # what, done, in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    state: State
    about: str
    text: str


@dataclass(slots=True, kw_only=True, eq=False)
class SplitCheck:
    """What was found in one split."""

    read: int = 0
    bad: list[Quarantined] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # of every usable record
    encoded: int = 0
    supervised: int = 0  # trained tokens among those of the encoded records
    encoded_tokens: int = 0
    wrong_suffix: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Checked:
    """The result; `ok` where nothing is wrong (unknown is not wrong)."""

    findings: list[Finding] = field(default_factory=list)
    splits: dict[str, SplitCheck] = field(default_factory=dict)
    parts: list[PartRow] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True where no finding is bad."""
        return all(finding.state != "bad" for finding in self.findings)

    def add(self, state: State, about: str, text: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(state=state, about=about, text=text))


def check(recipe: Recipe, *, decode: bool, allow_code: bool, progress: Progress) -> Checked:
    """Check a recipe without weights. Nothing is raised for what a finding can say."""
    result = Checked()
    functions = _try(result, "your code", lambda: user_functions(recipe, allow_code=allow_code), reachable=True)
    mixtures: dict[str, Mixture] = {}
    for split in ("train", "eval") if functions is not None else ():
        sections = recipe.data.train if split == "train" else recipe.data.eval
        local = all(section.path is not None for section in sections)
        mixture = _try(
            result, f"data.{split}", lambda split=split: open_records(recipe, split, functions), reachable=local or not recipe.model.offline
        )
        if mixture is not None:
            mixtures[split] = mixture
            for line in mixture.describe():
                result.add("ok", f"data.{split}", line)
    reachable = Path(resolve_id(recipe.model)).is_dir() or not recipe.model.offline
    loaded = _try(result, "model", lambda: load_encoder(recipe), reachable=reachable)
    encoder = loaded[2] if loaded else None
    if loaded:
        result.add("ok", "model", f"{recipe.model.id}: processor and chat template load")
        _check_tuning(result, recipe)
    for split, mixture in mixtures.items():
        _check_records(result, recipe, split, mixture, encoder, decode, progress)
    read, bad = (sum(values) for values in zip((0, 0), *((found.read, len(found.bad)) for found in result.splits.values()), strict=True))
    limit = Ledger(None, recipe.data.max_bad).limit(read)
    if bad > limit:
        result.add("bad", "data", f"{bad:,} bad records, and data.max_bad = {recipe.data.max_bad} allows {limit:,}")
    if len(mixtures) == 2:
        result.add(
            "ok", "data", find_overlap(mixtures["train"], mixtures["eval"]).describe() or "no held-out record or medium is trained on"
        )
    for about, notes in (("recipe", recipe_notes(recipe)), ("template", encoder.notes if encoder else ())):
        for note in notes:
            result.add("ok", about, note)
    if mixtures and loaded is None:
        result.add("unknown", "labels", "token counts and labels need the model's processor")
    return result


def _try(result: Checked, about: str, work: Callable, *, reachable: bool):
    try:
        return work()
    except FoveateError as error:
        result.add("bad" if reachable else "unknown", about, str(error))
        return None


def _check_tuning(result: Checked, recipe: Recipe) -> None:
    """Parts and targets against the module tree, built without memory for weights."""
    try:
        model, notes = apply_tuning(load_skeleton(recipe.model), recipe.tuning, seed=recipe.train.seed)
    except FoveateError as error:
        result.add("bad", "tuning", str(error))
        return
    result.parts = parts_table(model, peak_rates(recipe.optim))
    for note in notes:
        result.add("ok", "tuning", note)
    total, trained = sum(row.parameters for row in result.parts), sum(row.trained for row in result.parts)
    result.add("ok", "tuning", f"{trained:,} of {total:,} parameters are trained ({100 * trained / total:.2f}%)")


def _check_records(
    result: Checked, recipe: Recipe, split: str, mixture: Mixture, encoder: Encoder | None, decode: bool, progress: Progress
) -> None:
    found = result.splits[split] = SplitCheck()
    level = "decode" if decode else "headers"
    limits = {"rules": recipe.media}
    for verdict in scan(mixture, level=level, split=split, progress=lambda done, total: progress(split, done, total), **limits):
        found.read += 1
        found.wrong_suffix += verdict.wrong_suffix
        error = verdict.error
        if error is None and encoder is not None:
            try:
                length = encoder.length(verdict.conversation)
                require_fit(verdict.conversation, length, max_tokens=recipe.batch.max_tokens)
                if found.encoded < _ENCODED:
                    _encode(found, encoder, verdict.conversation)
                found.tokens.append(length.tokens)
            except DataError as problem:
                error = problem
            except FoveateError as problem:
                result.add("bad", "labels", str(problem))
                return
        if error is not None:
            found.bad.append(quarantined(error, verdict.origin, split))
    _sum_up(result, recipe, split, found)


def _encode(found: SplitCheck, encoder: Encoder, conversation) -> None:
    example = encoder(conversation)
    found.encoded += 1
    found.supervised += int((example.labels != IGNORED).sum())
    found.encoded_tokens += len(example.labels)


def _sum_up(result: Checked, recipe: Recipe, split: str, found: SplitCheck) -> None:
    about, bad = f"data.{split}", len(found.bad)
    result.add("ok", about, f"{found.read:,} records read = {found.read - bad:,} usable + {bad:,} bad")
    if found.read == bad:
        result.add("bad", about, "no record can be used")
    if found.wrong_suffix:
        result.add("ok", about, f"{found.wrong_suffix:,} media have a suffix of another format; their content decides")
    if found.tokens:
        marks = [int(torch.tensor(found.tokens, dtype=torch.float64).quantile(q)) for q in (0.5, 0.95, 1.0)]
        result.add(
            "ok",
            about,
            f"tokens per record: median {marks[0]:,}, 95% within {marks[1]:,}, longest {marks[2]:,} (budget {recipe.batch.max_tokens:,})",
        )
    if found.encoded:
        share = 100 * found.supervised / found.encoded_tokens
        result.add(
            "ok",
            about,
            f"labels proven on {found.encoded:,} records: {found.supervised:,} of {found.encoded_tokens:,} tokens trained ({share:.1f}%)",
        )
        if found.supervised == 0:
            result.add("bad", about, "no token is trained")


def first_bad(splits: Sequence[SplitCheck], most: int) -> list[Quarantined]:
    """The first bad records of all splits."""
    return [bad for split in splits for bad in split.bad][:most]
