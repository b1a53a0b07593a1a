"""The few records that a rehearsal trains on: the ones that a run is most likely to fail at."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from foveate.batching.lengths import judge
from foveate.config.media import MediaSection
from foveate.data.ledger import Ledger
from foveate.data.mixture import Mixture
from foveate.data.scan import Verdict, quarantined
from foveate.encode.encoder import Encoder
from foveate.errors import DataError
from foveate.events import Quarantined
from foveate.model.loss import IGNORED

LOOKED_AT = 256  # records of a split whose headers are read
MOST = 8  # chosen ones, unless there are more sources
NO_LIMIT = 1 << 30
_NAMED = 3


@dataclass(slots=True, kw_only=True)
class Chosen:
    """Some records of a split. `rows` are their numbers in each source, for the recipe's `rows:`."""

    mixture: Mixture
    split: str
    looked_at: int
    reasons: dict[int, list[str]]  # place in the mixture -> why it was chosen
    longest: int = 0  # tokens, among all that were looked at; 0 where no encoder counts them
    bad: list[Quarantined] = field(default_factory=list)
    tokens: int = 0  # of the chosen ones, encoded in full
    trained: int = 0  # tokens with a label among them

    @property
    def rows(self) -> list[list[int]]:
        """Row numbers by source, ascending."""
        found: list[set[int]] = [set() for _ in self.mixture.sources]
        for place in self.reasons:
            number, row = self.mixture.locate(place)
            found[number].add(row)
        return [sorted(rows) for rows in found]


def choose(mixture: Mixture, split: str, *, encoder: Encoder | None, max_tokens: int, rules: MediaSection) -> Chosen:
    """Looks at records spread over every source, decodes and encodes the chosen ones. Labels are proven on each of them.

    Raises DataError where none can be used; other FoveateErrors (a template that can't be used) pass through.
    """
    chosen = Chosen(mixture=mixture, split=split, looked_at=0, reasons={})
    usable: list[Verdict] = []
    for place in spread(mixture, LOOKED_AT):
        chosen.looked_at += 1
        verdict = judge(mixture, place, encoder=encoder, max_tokens=max_tokens, rules=rules, decode=False)
        if verdict.length is not None:
            chosen.longest = max(chosen.longest, verdict.length.tokens)
        if verdict.error is None:
            usable.append(verdict)
        else:
            chosen.bad.append(quarantined(verdict.error, verdict.origin, split))
    for place, why in _wanted(usable, mixture).items():
        _encode(chosen, place, why, encoder=encoder, max_tokens=max_tokens, rules=rules)
    if not chosen.reasons:
        first = chosen.bad[0]
        raise DataError(
            f"none of {chosen.looked_at:,} records can be used; the first: {first.problem}", reason=first.reason, where=str(first.origin),
            fix=first.fix,
        )  # fmt: skip
    return chosen


def require_few_bad(chosen: list[Chosen], max_bad: int | str) -> None:
    """Raises DataError where what was looked at has more bad records than the whole of the data may have."""
    total = sum(split.mixture.records for split in chosen)
    limit, bad = Ledger(None, max_bad).limit(total), [line for split in chosen for line in split.bad]
    if len(bad) > limit:
        named = "; ".join(f"{line.origin}: {line.reason}: {line.problem}" for line in bad[:_NAMED])
        raise DataError(
            f"{len(bad)} bad records among {sum(split.looked_at for split in chosen):,}, and max_bad = {max_bad} allows {limit:,}: {named}",
            reason=bad[0].reason,
            where="data",
            fix=bad[0].fix or "`foveate check` names all of them",
        )


def spread(mixture: Mixture, most: int) -> Iterator[int]:
    """Places of up to `most` distinct records, evenly over each source, its first and last among them; of a stream the first ones."""
    if mixture.window is not None:
        yield from mixture.first(most)
        return
    owner = lambda place: mixture.locate(place)[0]  # noqa: E731
    begins = [bisect_left(range(len(mixture)), number, key=owner) for number in range(len(mixture.sources))]
    share = max(2, most // len(begins))
    for number, begin in enumerate(begins):
        end = begins[number + 1] if number + 1 < len(begins) else len(mixture)
        distinct = min(len(mixture.sources[number]), end - begin)
        yield from (begin + offset for offset in dict.fromkeys(np.linspace(0, distinct - 1, min(distinct, share)).astype(int).tolist()))


def _wanted(usable: list[Verdict], mixture: Mixture) -> dict[int, list[str]]:
    """Place -> why, for the records that differ most from each other."""
    wanted: dict[int, list[str]] = {}

    def want(verdict: Verdict, why: str) -> None:
        wanted.setdefault(verdict.index, []).append(why)

    if not usable:
        return wanted
    want(usable[0], "first")
    want(max(usable, key=_size), "longest")
    want(min(usable, key=_size), "shortest")
    want(max(usable, key=lambda verdict: len(verdict.conversation.media)), "most media")
    want(max(usable, key=lambda verdict: len(verdict.conversation.messages)), "most turns")
    seen: dict[str, Verdict] = {}
    for verdict in usable:
        kinds = sorted({type(medium).__name__.lower() for medium in verdict.conversation.media})
        seen.setdefault(" and ".join(kinds) or "text alone", verdict)
        if len(mixture.sources) > 1:
            seen.setdefault(f"source {mixture.locate(verdict.index)[0]}", verdict)
    for why, verdict in seen.items():
        want(verdict, why)
    for verdict in usable[-1:] + usable[:: max(1, len(usable) // MOST)]:
        if len(wanted) < MOST:
            want(verdict, "spread")
    return wanted


def _size(verdict: Verdict) -> int:
    """Tokens, or characters where nothing counts tokens."""
    if verdict.length is not None:
        return verdict.length.tokens
    return sum(len(message.text) for message in verdict.conversation.messages)


def _encode(chosen: Chosen, place: int, why: list[str], *, encoder: Encoder | None, max_tokens: int, rules: MediaSection) -> None:
    verdict = judge(chosen.mixture, place, encoder=encoder, max_tokens=max_tokens, rules=rules, decode=True)
    error = verdict.error
    if error is None and encoder is not None:
        try:
            labels = encoder(verdict.conversation).labels
        except DataError as found:
            error = found
        else:
            chosen.tokens += len(labels)
            chosen.trained += int((labels != IGNORED).sum())
    if error is not None:
        chosen.bad.append(quarantined(error, verdict.origin, chosen.split))
        return
    chosen.reasons[place] = why
