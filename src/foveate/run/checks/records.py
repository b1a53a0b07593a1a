"""One pass over a split: each record is read once, by one of several processes, and everything that is asked of it is asked then."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from foveate.batching.lengths import judge
from foveate.batching.rows import bits_of
from foveate.config.media import MediaSection
from foveate.data.likeness import FLAT, picture_hash
from foveate.data.mixture import Mixture
from foveate.data.overlap import content_key, media_key
from foveate.data.scan import Verdict, quarantined
from foveate.encode.encoder import Encoder
from foveate.errors import DataError, FoveateError
from foveate.events import Quarantined
from foveate.model.loss import IGNORED
from foveate.run.pool import Mark, in_chunks
from foveate.types import Conversation, Image, Media, Row

UNKNOWN = -1
USABLE, BAD, UNCHECKED = 0, 1, 2
_CHUNK = {False: 64, True: 16}  # records that a process gets at a time, by whether they are decoded
_ENCODED = 200  # records of a split that are encoded in full
_MEMO = 50_000  # files whose hashes a process remembers: many conversations are about few pictures
_ANSWERS = 3  # of each chunk, those with most characters
_KEY = np.dtype("V16")
_MEDIUM = np.dtype([("place", "i4"), ("key", _KEY), ("picture", "u8")])
Progress = Callable[[int, int], object]


@dataclass(slots=True, kw_only=True)
class Part:
    """What a process found in some records; arrays have an entry a record."""

    verdicts: np.ndarray  # [n] u1: USABLE, BAD, UNCHECKED
    tokens: np.ndarray  # [n] i4, UNKNOWN where there is no length
    patches: np.ndarray  # [n] i4, what the media towers compute; 0 where there is no length
    held: np.ndarray  # [n] u1, the kinds of media in the record, see rows.bits_of
    keys: np.ndarray  # [n] V16, the content of usable records
    ids: np.ndarray  # [n] u8, a hash of the row's id; 0 where it has none
    media: np.ndarray  # [m] of _MEDIUM, of usable records
    bad: list[tuple[int, Quarantined]] = field(default_factory=list)
    failures: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)  # (problem, fix) -> (records, the first's name)
    kinds: Counter[tuple[int, str]] = field(default_factory=Counter)  # (source, kind) -> media of usable records
    answers: list[tuple[int, int]] = field(default_factory=list)  # (characters, place) of the longest
    lightest: float = math.inf  # weights of trained turns
    heaviest: float = 0.0
    many_answers: int = 0  # usable records with several accepted answers
    undecoded: list[str] = field(default_factory=list)  # pictures that could not be compared
    wrong_suffix: int = 0
    encoded: int = 0
    encoded_tokens: int = 0
    supervised_tokens: int = 0


@dataclass(slots=True, kw_only=True)
class Scanned(Part):
    """The same for a whole split; `places` [n] are the records' places in the mixture, `sources` [n] whose they are."""

    mixture: Mixture
    split: str
    places: np.ndarray
    sources: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What is looked at in each record. Called with a range of entries of `places`."""

    mixture: Mixture
    split: str
    places: np.ndarray
    encoder: Encoder | None
    max_tokens: int
    max_patches: int | None
    rules: MediaSection
    decode: bool
    pictures: bool  # whether pictures are hashed for likeness
    encoded: frozenset[int]  # entries that are encoded in full
    with_ids: frozenset[int]  # sources whose rows have an id
    memo: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def __call__(self, entries: range, mark: Mark) -> Part:
        count = len(entries)
        part = Part(
            verdicts=np.full(count, USABLE, "u1"),
            tokens=np.full(count, UNKNOWN, "i4"),
            patches=np.zeros(count, "i4"),
            held=np.zeros(count, "u1"),
            keys=np.zeros(count, _KEY),
            ids=np.zeros(count, "u8"),
            media=np.zeros(0, _MEDIUM),
        )
        media: list[tuple[int, bytes, int]] = []
        for i, entry in enumerate(entries):
            mark(entry)
            self._look(part, media, i, entry)
        part.media = np.array([(place, np.void(key), picture) for place, key, picture in media], _MEDIUM)
        part.answers = sorted(part.answers, reverse=True)[:_ANSWERS]
        return part

    def _look(self, part: Part, media: list[tuple[int, bytes, int]], i: int, entry: int) -> None:
        place = int(self.places[entry])
        source, _ = self.mixture.locate(place)
        try:
            given = self._row(place) if source in self.with_ids else None
            limits = {"max_tokens": self.max_tokens, "max_patches": self.max_patches}
            verdict = judge(self.mixture, place, encoder=self.encoder, **limits, rules=self.rules, decode=self.decode, given=given)
            if verdict.length is not None:
                part.tokens[i], part.patches[i] = verdict.length.tokens, verdict.length.patches
                part.held[i] = bits_of(verdict.length.kinds)
            if verdict.error is None and entry in self.encoded:
                verdict = self._encode(part, verdict)
        except FoveateError as error:
            part.verdicts[i] = UNCHECKED
            known, first = part.failures.get((error.problem, error.fix), (0, error.where or str(self.mixture.origin(place))))
            part.failures[error.problem, error.fix] = (known + 1, first)
            return
        if given is not None and given.get("id") is not None:
            part.ids[i] = _short_hash(f"{source}\0{given['id']}")
        if verdict.error is not None:
            part.verdicts[i] = BAD
            part.bad.append((entry, quarantined(verdict.error, verdict.origin, self.split)))
            return
        self._keep(part, media, i, entry, source, verdict)

    def _keep(self, part: Part, media: list, i: int, entry: int, source: int, verdict: Verdict) -> None:
        conversation = verdict.conversation
        part.wrong_suffix += verdict.wrong_suffix
        part.answers.append((len(conversation.messages[-1].text), entry))
        weights = [message.weight for message in conversation.messages if message.trained]
        part.lightest, part.heaviest = min([part.lightest, *weights]), max([part.heaviest, *weights])
        part.many_answers += len(conversation.answers) > 1
        keys = []
        for medium in conversation.media:
            key, picture = self._hashes(part, medium)
            keys.append(key)
            media.append((entry, key, picture))
            part.kinds[source, type(medium).__name__.lower()] += 1
        part.keys[i] = np.void(content_key(conversation, keys))

    def _row(self, place: int) -> Row | None:
        try:
            return self.mixture.row(place)
        except DataError:  # said when the record is judged
            return None

    def _encode(self, part: Part, verdict: Verdict) -> Verdict:
        try:
            labels = self.encoder(verdict.conversation).labels
        except DataError as error:
            return Verdict(index=verdict.index, origin=verdict.origin, error=error, length=verdict.length)
        part.encoded += 1
        part.encoded_tokens += len(labels)
        part.supervised_tokens += int((labels != IGNORED).sum())
        return verdict

    def _hashes(self, part: Part, medium: Media) -> tuple[bytes, int]:
        name = str(medium.path) if medium.path is not None else ""
        found = self.memo.get(name) if name else None
        if found is None:
            found = (media_key(medium), self._picture(part, medium))
            if name and len(self.memo) < _MEMO:
                self.memo[name] = found
        return found

    def _picture(self, part: Part, medium: Media) -> int:
        if not self.pictures or not isinstance(medium, Image):
            return FLAT
        try:
            return picture_hash(medium, rules=self.rules)
        except DataError as error:  # its header was whole
            part.undecoded.append(str(error))
            return FLAT


def scan_split(
    mixture: Mixture,
    split: str,
    *,
    encoder: Encoder | None,
    max_tokens: int,
    max_patches: int | None = None,
    rules: MediaSection,
    decode: bool,
    pictures: bool,
    workers: int,
    progress: Progress,
) -> Scanned:
    """Look at every distinct record of a split. The result does not depend on the number of workers.

    Raises pool.Killed where a process was killed.
    """
    places = np.fromiter(mixture.first(None), "i8")
    total = len(places)
    look = _Look(
        mixture=mixture,
        split=split,
        places=places,
        encoder=encoder,
        max_tokens=max_tokens,
        max_patches=max_patches,
        rules=rules,
        decode=decode,
        pictures=pictures,
        encoded=frozenset(np.linspace(0, total - 1, min(total, _ENCODED)).astype(int).tolist()) if encoder and total else frozenset(),
        with_ids=frozenset(number for number, source in enumerate(mixture.sources) if "id" in source.columns),
    )
    parts: dict[int, Part] = {}
    done = 0
    workers = 1 if mixture.window is not None else workers  # a stream has one reader
    for entries, part in in_chunks(look, total, chunk=_CHUNK[decode], workers=workers):
        parts[entries.start] = part
        done += len(entries)
        progress(done, total)
    return _joined(look, [parts[start] for start in sorted(parts)])


def _joined(look: _Look, parts: Sequence[Part]) -> Scanned:
    failures: dict[tuple[str, str], tuple[int, str]] = {}
    for part in parts:
        for what, (count, first) in part.failures.items():
            before, name = failures.get(what, (0, first))
            failures[what] = (before + count, name)
    empty = {"verdicts": "u1", "tokens": "i4", "patches": "i4", "held": "u1", "keys": _KEY, "ids": "u8", "media": _MEDIUM}
    arrays = {
        "verdicts": [part.verdicts for part in parts],
        "tokens": [part.tokens for part in parts],
        "patches": [part.patches for part in parts],
        "held": [part.held for part in parts],
        "keys": [part.keys for part in parts],
        "ids": [part.ids for part in parts],
        "media": [part.media for part in parts],
    }
    return Scanned(
        mixture=look.mixture,
        split=look.split,
        places=look.places,
        sources=_sources(look.mixture, look.places),
        **{name: np.concatenate(found) if found else np.zeros(0, empty[name]) for name, found in arrays.items()},
        bad=[bad for part in parts for bad in part.bad],
        failures=failures,
        kinds=sum((part.kinds for part in parts), Counter()),
        answers=sorted((answer for part in parts for answer in part.answers), reverse=True)[:_ANSWERS],
        lightest=min((part.lightest for part in parts), default=math.inf),
        heaviest=max((part.heaviest for part in parts), default=0.0),
        many_answers=sum(part.many_answers for part in parts),
        undecoded=[name for part in parts for name in part.undecoded],
        wrong_suffix=sum(part.wrong_suffix for part in parts),
        encoded=sum(part.encoded for part in parts),
        encoded_tokens=sum(part.encoded_tokens for part in parts),
        supervised_tokens=sum(part.supervised_tokens for part in parts),
    )


def _sources(mixture: Mixture, places: np.ndarray) -> np.ndarray:
    """The source of each place; places lie source by source."""
    owner = lambda entry: mixture.locate(int(places[entry]))[0]  # noqa: E731
    ends = [bisect_right(range(len(places)), number, key=owner) for number in range(len(mixture.sources))]
    return np.repeat(np.arange(len(ends), dtype="i2"), np.diff(ends, prepend=0))


def conversation_at(scanned: Scanned, entry: int) -> Conversation:
    """The record at an entry, read again."""
    return scanned.mixture.conversation(int(scanned.places[entry]))


def _short_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big") or 1
