"""Decoded media on disk (`media.cache_decoded`): what is dear to decode is decoded once, and read back bit for bit.

Kept are images that `max_pixels` shrinks, the chosen frames of clips, and sounds that are compressed or resampled. Any other image or sound
is decoded about as fast as its pixels or samples are read.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveate.config.media import KEEPING, MediaSection
from foveate.data.files import cache_folder
from foveate.data.media.clip import load_video
from foveate.data.media.identity import medium_identity
from foveate.data.media.picture import image_frame, open_pixels
from foveate.data.media.sound import is_plain, load_audio
from foveate.data.media.timing import Choose
from foveate.data.store import Counts, Store
from foveate.types import Audio, Image, Media, MediaKind, Video, kind_of

_VERSION = 1  # raise when the same file would be decoded to other values: another rule for EXIF, transparency, shrinking
_WRITERS = 64  # processes that decode for one folder at once, all runs together; more of them may go over its limit by a little
_PACKAGES: dict[MediaKind, tuple[str, ...]] = {
    "image": ("pillow", "simplejpeg", "pillow-heif"),
    "video": ("av", "pillow", "simplejpeg", "pillow-heif"),  # a clip may be a folder of pictures
    "audio": ("soundfile", "soxr", "av", "numpy"),
}


class DecodedMedia:
    """The loaders of `foveate.data.media` with a store behind them: the same arrays, the same DataErrors. Picklable."""

    def __init__(self, store: Store, *, rules: MediaSection) -> None:
        self._store, self._rules = store, rules

    @property
    def counts(self) -> Counts:
        """What this process found, decoded and wrote so far."""
        return self._store.counts

    def pixels(self, image: Image) -> np.ndarray:
        """`open_pixels`, [height, width, 3] uint8."""

        def decode() -> dict[str, np.ndarray]:
            return {"pixels": open_pixels(image, rules=self._rules)}

        if image.max_pixels is not None:
            height, width = image_frame(image, rules=self._rules).upright
            if height * width > image.max_pixels:
                return self._through(image, None, decode)["pixels"]
        return decode()["pixels"]

    def samples(self, audio: Audio, rate_hz: int) -> np.ndarray:
        """`load_audio`, float32 [samples]."""

        def decode() -> dict[str, np.ndarray]:
            return {"samples": load_audio(audio, rate_hz, rules=self._rules)}

        if is_plain(audio, rate_hz, rules=self._rules):
            return decode()["samples"]
        return self._through(audio, rate_hz, decode)["samples"]

    def frames(self, video: Video, choose: Choose, *, chosen_by: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """`load_video`: frames uint8 [N, height, width, 3] and metadata. `chosen_by` is all that `choose` goes by beside the clip."""

        def decode() -> dict[str, np.ndarray]:
            frames, about = load_video(video, rules=self._rules, choose=choose)
            return {"frames": frames, "about": np.frombuffer(bytearray(json.dumps(about), "utf-8"), np.uint8)}

        found = self._through(video, chosen_by, decode)
        return found["frames"], json.loads(found["about"].tobytes())

    def _through(self, medium: Media, settings: Any, decode: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        key = self._key(medium, settings)
        found = self._store.load(key)
        if found is not None:
            return {name: tensor.numpy() for name, tensor in found.items()}
        fresh = decode()
        if self._key(medium, settings) == key:  # else the file was written to in the meantime
            self._store.save(key, {name: torch.from_numpy(array) for name, array in fresh.items()})
        return fresh

    def _key(self, medium: Media, settings: Any) -> str:
        made_of = {
            "decoded": _VERSION,
            "medium": medium_identity(medium, self._rules),  # with what the record asks for
            "settings": settings,
            "rules": self._rules.model_dump(exclude=KEEPING),  # what they refuse is never found
            "decoders": _decoders(kind_of(medium)),
        }
        return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()


def decoded_media(rules: MediaSection) -> DecodedMedia | None:
    """The media that `rules` say are kept; None where they are not. DataError `cache_unwritable`."""
    if rules.cache_decoded == "off":
        return None
    # Features may lie in the same folder: each of the two takes half of what is written there unseen.
    store = Store(disk_folder(rules), limit_bytes=int(rules.cache_gb * 1e9), writers=2 * _WRITERS)
    return DecodedMedia(store, rules=rules)


def disk_folder(rules: MediaSection) -> Path:
    """Where features and decoded media are kept on disk. DataError `cache_unwritable`."""
    return Path(rules.cache_folder) if rules.cache_folder is not None else cache_folder("features")


@cache
def _decoders(kind: MediaKind) -> dict[str, Any]:
    """Versions of all that turns a file of this kind into values: other ones may round differently."""
    found: dict[str, Any] = {"machine": platform.machine()}
    for name in _PACKAGES[kind]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    # A system's own builds of the packages above use the system's libraries.
    if kind != "audio":
        from PIL import features

        found |= {name: features.version(name) for name in ("jpg", "libjpeg_turbo", "webp", "avif")}
    if kind != "image" and found["av"] is not None:
        import av

        found["libav"] = av.library_versions
    if kind == "audio" and found["soundfile"] is not None:
        import soundfile

        found["libsndfile"] = soundfile.__libsndfile_version__
    return found
