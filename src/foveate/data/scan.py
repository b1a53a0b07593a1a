"""Runs over every record before training does: the verdict of each, and a ledger line for the bad ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from foveate.config.media import MediaSection
from foveate.data.media import (
    VideoInfo,
    asked_frames,
    audio_samples,
    even_frames,
    has_wrong_suffix,
    image_size,
    load_audio,
    load_video,
    open_image,
    video_frames,
    window,
)
from foveate.data.mixture import Mixture
from foveate.errors import DataError
from foveate.events import Quarantined
from foveate.types import Audio, Conversation, Image, Length, Origin, Video

_SOME_FRAMES = 4
_RATE_HZ = 16_000  # any rate would do: only whether the sound can be read is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one record: `conversation` when it can be used, else `error`."""

    index: int  # its place in the mixture
    origin: Origin
    conversation: Conversation | None = None
    error: DataError | None = None
    length: Length | None = None  # where it was measured; also of a record that is too long
    fits: bool = False  # its length is known and within the budgets, whatever else is wrong with it
    wrong_suffix: int = 0  # media whose name says another format than their content


def scan(
    mixture: Mixture,
    *,
    level: Literal["headers", "decode"],
    rules: MediaSection,
    split: str = "train",
    on_bad: Callable[[Quarantined], object] | None = None,
    progress: Callable[[int, int], object] | None = None,
    indices: Iterable[int] | None = None,
) -> Iterator[Verdict]:
    """A verdict for each distinct record, in order, or for the places in `indices` only.

    `headers` reads each medium's header, `decode` all of it. `on_bad` gets the ledger line of each bad record (and may raise to stop),
    `progress` (records done, records in all). FoveateErrors that are no record's fault (a missing package) pass through.
    """
    places = list(indices) if indices is not None else mixture.first(None)
    total = len(places) if isinstance(places, list) else mixture.records
    for done, index in enumerate(places, 1):
        origin = mixture.origin(index)
        try:
            conversation = mixture.conversation(index)
            odd = check_media(conversation, level=level, rules=rules)
            verdict = Verdict(index=index, origin=origin, conversation=conversation, wrong_suffix=odd)
        except DataError as error:
            verdict = Verdict(index=index, origin=origin, error=error)
            if on_bad is not None:
                on_bad(quarantined(error, origin, split))
        if progress is not None:
            progress(done, total)
        yield verdict


def check_media(conversation: Conversation, *, level: Literal["headers", "decode"], rules: MediaSection) -> int:
    """Open every medium. DataError when one can't be used; returns how many have a suffix of another format."""
    odd = 0
    for medium in conversation.media:
        match medium, level:
            case Image(), "headers":
                image_size(medium, rules=rules)
            case Image(), _:
                open_image(medium, rules=rules)
            case Audio(), "headers":
                audio_samples(medium, _RATE_HZ, rules=rules)
            case Audio(), _:
                load_audio(medium, _RATE_HZ, rules=rules)
            case Video(), "headers":
                video_frames(medium, rules=rules, choose=partial(_some, medium))
            case Video(), _:
                load_video(medium, rules=rules, choose=partial(_some, medium))
        odd += has_wrong_suffix(medium)
    return odd


def _some(video: Video, info: VideoInfo) -> list[int]:
    """The frames that the record asks for, else some from the first to the last: a file that was cut lacks those at its end."""
    asked, (first, last) = asked_frames(video, info), window(video, info)
    return [first + number for number in even_frames(last - first + 1, _SOME_FRAMES)] if asked is None else asked


def quarantined(error: DataError, origin: Origin, split: str) -> Quarantined:
    """The ledger line of a bad record; names the medium or line when the error does."""
    place = error.where.removeprefix(str(origin)).strip()
    return Quarantined(
        origin=origin, split=split, reason=error.reason, problem=": ".join(filter(None, [place, error.problem])), fix=error.fix
    )
