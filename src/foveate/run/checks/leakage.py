"""Records met twice: in the training split, and in training and held-out data both."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from foveate.config.media import MediaSection
from foveate.data.likeness import FLAT, likeness_view, look_alike, near
from foveate.data.overlap import is_partial, media_key
from foveate.errors import DataError
from foveate.run.checks.findings import Checked, Leakage, Pair, counted
from foveate.run.checks.records import USABLE, Scanned, conversation_at
from foveate.types import Image, Media

_EXAMPLES = 5  # pairs of each kind in the JSON
_SHOWN = 2  # and in the text
_VERIFIED = 2_000  # candidates whose pixels are compared
_VIEWS = 256  # kept, 192 KiB each
_TWINS = 4  # training pictures looked at for each held-out one


def note_duplicates(result: Checked, scanned: Scanned) -> None:
    """Records of one split that are equal, and ids that stand on several records."""
    found, about = result.splits[scanned.split], f"data.{scanned.split}"
    usable = np.flatnonzero(scanned.verdicts == USABLE)
    twice, first = _repeats(scanned.keys[usable])
    found.duplicates = len(twice)
    if len(twice):
        shown = "; ".join(
            f"{_name(scanned, usable[later])} equals {_name(scanned, usable[earlier])}" for later, earlier in _some(twice, first)
        )
        result.add("warn", about, f"{counted(len(twice), 'record is', 'records are')} there twice, media included: {shown}")
    named = np.flatnonzero(scanned.ids)
    twice, first = _repeats(scanned.ids[named])
    # Records that are equal altogether have been named; so have their ids.
    other = _plain(scanned.keys[named[twice]]) != _plain(scanned.keys[named[first]])
    twice, first = twice[other], first[other]
    found.duplicate_ids = len(twice)
    if len(twice):
        shown = "; ".join(f"{_name(scanned, named[later])} and {_name(scanned, named[earlier])}" for later, earlier in _some(twice, first))
        result.add("warn", about, f"{len(twice):,} records have the id of another one but say something else: {shown}")


def find_leakage(train: Scanned, held: Scanned, *, pictures: bool, rules: MediaSection) -> Leakage:
    """What held-out records share with training records, by content; with `pictures`, also pictures that show the same."""
    examples: dict[str, list[Pair]] = {"same": [], "same_media": [], "near_images": []}
    same = _matches(held.keys, train.keys, held.verdicts == USABLE, train.verdicts == USABLE)
    for entry, twin in same:
        _note(examples["same"], held, entry, train, twin)
    shared: set[int] = set()
    whole = {entry for entry, _ in same}
    for row, twin in _matches(held.media["key"], train.media["key"]):
        entry, other = int(held.media["place"][row]), int(train.media["place"][twin])
        if is_partial(bytes(held.media["key"][row])) and not _equal_whole(held, row, train, twin):
            continue
        if entry not in shared and entry not in whole:
            _note(examples["same_media"], held, entry, train, other)
        shared.add(entry)
    near_images, unverified = _near(train, held, shared, examples["near_images"], rules) if pictures else (None, 0)
    return Leakage(
        compared=int((held.verdicts == USABLE).sum()),
        same=len(same),
        same_media=len(shared - whole),
        near_images=near_images,
        near_unverified=unverified,
        examples={kind: pairs for kind, pairs in examples.items() if pairs},
    )


def note_leakage(result: Checked, found: Leakage) -> None:
    """Warn of what was found, with examples."""
    result.leakage = found
    lines = {
        "same": (found.same, "are trained on as they are"),
        "same_media": (found.same_media, "ask something else about media that are trained on"),
        "near_images": (found.near_images, "show an image that is trained on in another file (saved again, resized, brightened)"),
    }
    for kind, (count, what) in lines.items():
        if count:
            shown = "; ".join(f"{pair.eval} and {pair.train}" for pair in found.examples[kind][:_SHOWN])
            text = f"of {found.compared:,} held-out records, {count:,} {what}, so their scores say little: {shown}"
            result.add("warn", "data.eval", text)
    if found.near_unverified:
        result.add("note", "data.eval", f"{found.near_unverified:,} more pictures may be alike; only the first {_VERIFIED:,} were compared")
    if not any(count for count, _ in lines.values()):
        near_too = "" if found.near_images is None else ", nor an image like one"
        result.add("ok", "data.eval", f"no held-out record or medium is trained on{near_too}")


def _near(train: Scanned, held: Scanned, shared: set[int], examples: list[Pair], rules: MediaSection) -> tuple[int, int]:
    """(held-out records with a picture like one trained on, candidates that were not looked at)."""
    hashes, first = np.unique(train.media["picture"], return_index=True)
    wanted = np.flatnonzero(held.media["picture"] != FLAT)
    views: dict[int, np.ndarray | None] = {}
    alike: set[int] = set()
    looked = left = 0
    for i, twins in near(held.media["picture"][wanted], hashes):
        row = int(wanted[i])
        entry = int(held.media["place"][row])
        if entry in shared or entry in alike:
            continue
        if looked >= _VERIFIED:
            left += 1
            continue
        looked += 1
        own = _view(held, row, rules)
        for twin in first[twins[:_TWINS]]:
            if len(views) >= _VIEWS:
                views.clear()
            if int(twin) not in views:
                views[int(twin)] = _view(train, int(twin), rules)
            other = views[int(twin)]
            if own is not None and other is not None and look_alike(own, other):
                alike.add(entry)
                _note(examples, held, entry, train, int(train.media["place"][twin]))
                break
    return len(alike), left


def _view(scanned: Scanned, row: int, rules: MediaSection) -> np.ndarray | None:
    medium = _medium(scanned, row)
    try:
        return likeness_view(medium, rules=rules) if isinstance(medium, Image) else None
    except DataError:
        return None


def _medium(scanned: Scanned, row: int) -> Media:
    entry = int(scanned.media["place"][row])
    first = int(np.searchsorted(scanned.media["place"], entry))
    return conversation_at(scanned, entry).media[row - first]


def _equal_whole(held: Scanned, row: int, train: Scanned, twin: int) -> bool:
    return media_key(_medium(held, row), whole=True) == media_key(_medium(train, twin), whole=True)


def _matches(wanted: np.ndarray, among: np.ndarray, *chosen: np.ndarray) -> list[tuple[int, int]]:
    """(place in `wanted`, the first equal one in `among`) for each that has one; `chosen` masks both."""
    ours, theirs = (np.flatnonzero(mask) for mask in chosen) if chosen else (np.arange(len(wanted)), np.arange(len(among)))
    order, values = _sorted(among[theirs])
    if not len(values) or not len(ours):
        return []
    keys = _plain(wanted[ours])
    at = np.searchsorted(values, keys)
    hit = (at < len(values)) & (values[np.minimum(at, len(values) - 1)] == keys)
    return [(int(ours[i]), int(theirs[order[at[i]]])) for i in np.flatnonzero(hit)]


def _repeats(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places whose key stood before, the first place of that key), in order."""
    values, first, inverse = np.unique(_plain(keys), return_index=True, return_inverse=True)
    earliest = first[inverse] if len(values) else np.zeros(0, dtype=np.int64)
    twice = np.flatnonzero(earliest != np.arange(len(keys)))
    return twice, earliest[twice]


def _sorted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    plain = _plain(keys)
    order = np.argsort(plain, kind="stable")
    return order, plain[order]


def _plain(keys: np.ndarray) -> np.ndarray:
    """Keys as values that numpy orders: 16 bytes as fixed-length text of bytes."""
    return keys.view("S16") if keys.dtype.kind == "V" else keys


def _some(later: np.ndarray, earlier: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(later[:_SHOWN].tolist(), earlier[:_SHOWN].tolist(), strict=True)


def _name(scanned: Scanned, entry: int) -> str:
    return str(scanned.mixture.origin(int(scanned.places[int(entry)])))


def _note(examples: list[Pair], held: Scanned, entry: int, train: Scanned, twin: int) -> None:
    if len(examples) < _EXAMPLES:
        examples.append(Pair(eval=_name(held, entry), train=_name(train, twin)))
