"""What the held-out answers say: the headline, what changed, accuracy by question, and the gallery."""

from __future__ import annotations

import base64
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foveate.events import LOWER_IS_BETTER, EvalRow
from foveate.report.run_files import EvalFile
from foveate.report.text import SHARES, metric_name, metric_value, percent

_MOST_CARDS = 48
_MOST_MISSES = 20
_MOST_MEDIA_BYTES = 6 * 2**20  # embedded thumbnails in all: the page must stay easy to mail
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One metric before and after, written out; `better` is None when there is nothing to compare."""

    metric: str
    name: str
    before: str
    after: str
    delta: str
    better: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The page's first figure. `low` and `high` bound the 95% interval of `after`; positions are percentages of the track."""

    change: Change
    rows: int
    interval: str
    before_at: float | None
    after_at: float | None
    low_at: float | None
    high_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Answers of one kind: fixed (wrong, now right), kept, broken (right, now wrong), wrong (both times)."""

    kind: str
    name: str
    rows: int
    share: float  # of all compared answers


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionLine:
    """A question asked of several samples, with its score before and after."""

    question: str
    rows: int
    before: str
    after: str
    after_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One sample of the gallery; `*_right` is True, False, or None for a partial score."""

    number: int
    origin: str
    question: str
    expected: str
    others: int  # further accepted answers
    before: str | None
    after: str | None
    before_right: bool | None
    after_right: bool | None
    before_score: str
    after_score: str
    kind: str  # the Outcome's kind; "only" where there is nothing to compare
    pictures: tuple[str, ...]


def primary_metric(evals: Sequence[EvalFile], wanted: str | None = None) -> str | None:
    """The metric that the page speaks of: the recipe's `train.best` if measured, else the first that is."""
    measured = {name for item in evals for name in item.metrics}
    return next((name for name in (wanted, "exact_match", "vqa_accuracy", "wer", "loss") if name in measured), None)


def ends(evals: Sequence[EvalFile]) -> tuple[EvalFile | None, EvalFile | None]:
    """The evaluation before training, and that of the final model; until there is one, the latest.

    With `train.best` the final model is that of an earlier step, so the latest evaluation is not always its own.
    """
    before = next((item for item in evals if item.stage == "before"), None)
    later = [item for item in evals if item.stage != "before"]
    final = next((item for item in later if item.stage == "after"), None)
    return before, final or (later[-1] if later else None)


def change(metric: str, before: EvalFile | None, after: EvalFile | None) -> Change:
    """The metric at both ends, with the difference in points (shares) or in its own unit."""
    old = before.metrics.get(metric) if before else None
    new = after.metrics.get(metric) if after else None
    delta, better = "", None
    if old is not None and new is not None and round(new - old, 4) != 0:
        sign = "+" if new > old else "−"
        size = abs(new - old)
        delta = sign + (f"{percent(size)[:-1]} points" if metric in SHARES else metric_value(metric, size))
        better = (new < old) if metric in LOWER_IS_BETTER else (new > old)
    name = metric_name(metric)
    return Change(metric=metric, name=name, before=metric_value(metric, old), after=metric_value(metric, new), delta=delta, better=better)


def headline(metric: str, before: EvalFile | None, after: EvalFile | None) -> Headline:
    """The headline figure; the interval is Wilson's (1927) and given only where each answer is right or wrong."""
    shown = after or before
    rows = len(shown.rows) if shown else 0
    share = shown.metrics.get(metric) if shown else None
    bounds = wilson(share, rows) if metric == "exact_match" and share is not None and rows else None
    on_track = metric in SHARES
    return Headline(
        change=change(metric, before, after),
        rows=rows,
        interval=f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}%" if bounds else "",
        before_at=_place(before, metric) if on_track else None,
        after_at=_place(after, metric) if on_track else None,
        low_at=100 * bounds[0] if bounds else None,
        high_at=100 * bounds[1] if bounds else None,
    )


def wilson(share: float, rows: int) -> tuple[float, float]:
    """The 95% score interval of a share of `rows` independent answers (Wilson 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def outcomes(metric: str, before: EvalFile | None, after: EvalFile | None) -> list[Outcome]:
    """How many answers were fixed, kept, broken or stayed wrong; empty without two evaluations of the same rows."""
    if before is None or after is None:
        return []
    old = {row.index: row for row in before.rows}
    kinds = Counter(_kind(metric, old[row.index], row) for row in after.rows if row.index in old and metric in row.scores)
    total = kinds.total()
    names = {"fixed": "newly right", "kept": "right before and after", "wrong": "wrong before and after", "broken": "newly wrong"}
    return [Outcome(kind=kind, name=name, rows=kinds[kind], share=kinds[kind] / total) for kind, name in names.items() if total]


def by_question(metric: str, before: EvalFile | None, after: EvalFile | None) -> list[QuestionLine]:
    """Scores by question text, most frequent first; empty unless two to sixteen questions cover the set five times each."""
    if after is None or metric == "wer":
        return []
    groups: dict[str, list[int]] = defaultdict(list)
    for row in after.rows:
        if metric in row.scores:
            groups[row.question].append(row.index)
    if not 2 <= len(groups) <= 16 or min(map(len, groups.values())) < 5:
        return []
    new = {row.index: row.scores[metric] for row in after.rows if metric in row.scores}
    old = {row.index: row.scores[metric] for row in before.rows if metric in row.scores} if before else {}
    lines = []
    for question, indices in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        share = sum(new[index] for index in indices) / len(indices)
        known = [old[index] for index in indices if index in old]
        earlier = metric_value(metric, sum(known) / len(known)) if known else "–"
        lines.append(
            QuestionLine(question=question, rows=len(indices), before=earlier, after=metric_value(metric, share), after_share=share)
        )
    return lines


def cards(metric: str | None, before: EvalFile | None, after: EvalFile | None, run_dir: Path) -> list[Card]:
    """The samples with thumbnails (all samples where none has one), at most 48; embedded as long as the page has room for them."""
    shown = after or before
    if shown is None:
        return []
    rows = ([row for row in shown.rows if row.media] or list(shown.rows))[:_MOST_CARDS]
    old = {row.index: row for row in before.rows} if before and after else {}
    room, made = _MOST_MEDIA_BYTES, []
    for row in rows:
        pictures = [_data_uri(run_dir / name) for name in row.media]
        pictures = [uri for uri in pictures if uri and len(uri) <= room]
        room -= sum(map(len, pictures))
        made.append(_card(metric, old.get(row.index), row, tuple(pictures), is_after=after is not None))
    return made


def misses(metric: str | None, after: EvalFile | None, shown: Sequence[Card]) -> list[EvalRow]:
    """The first wrong answers that the gallery does not show, at most 20: where the model still fails is what to look at next."""
    seen = {card.number - 1 for card in shown}
    rows = after.rows if after and metric else ()
    return [row for row in rows if row.index not in seen and metric in row.scores and _right(metric, row) is not True][:_MOST_MISSES]


def _card(metric: str | None, old: EvalRow | None, row: EvalRow, pictures: tuple[str, ...], *, is_after: bool) -> Card:
    first, last = (old, row) if is_after else (row, None)
    return Card(
        number=row.index + 1,
        origin=str(row.origin),
        question=row.question,
        expected=row.expected[0] if row.expected else "",
        others=len(set(row.expected)) - 1 if row.expected else 0,
        before=first.prediction if first else None,
        after=last.prediction if last else None,
        before_right=_right(metric, first),
        after_right=_right(metric, last),
        before_score=_score(metric, first),
        after_score=_score(metric, last),
        kind=_kind(metric, old, row) if metric and old and is_after else "only",
        pictures=pictures,
    )


def _right(metric: str | None, row: EvalRow | None) -> bool | None:
    if row is None or metric is None or metric not in row.scores:
        return None
    value = row.scores[metric]
    if metric in LOWER_IS_BETTER:
        return True if value <= 1e-9 else (False if value >= 1 else None)
    return True if value >= 1 - 1e-9 else (False if value <= 1e-9 else None)


def _score(metric: str | None, row: EvalRow | None) -> str:
    partial = row is not None and metric is not None and metric in row.scores and _right(metric, row) is None
    return metric_value(metric, row.scores[metric]) if partial and row is not None and metric is not None else ""


def _kind(metric: str, old: EvalRow, new: EvalRow) -> str:
    was, now = _right(metric, old) is True, _right(metric, new) is True
    return {(False, True): "fixed", (True, True): "kept", (True, False): "broken", (False, False): "wrong"}[was, now]


def _place(item: EvalFile | None, metric: str) -> float | None:
    value = item.metrics.get(metric) if item else None
    return None if value is None else 100 * min(max(value, 0.0), 1.0)


def _data_uri(path: Path) -> str:
    kind = _TYPES.get(path.suffix.lower())
    if kind is None or not path.is_file():
        return ""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
