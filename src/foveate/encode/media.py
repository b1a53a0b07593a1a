"""A conversation's media as keyword arguments of a processor: the real ones, or blank ones of the same size."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from foveate.config.media import MediaSection
from foveate.data import media
from foveate.data.media.kept import decoded_media
from foveate.errors import DataError
from foveate.types import Audio, Conversation, Image, MediaKind, Video, kind_of

if TYPE_CHECKING:
    from PIL import Image as Pillow
    from transformers import ProcessorMixin


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """All that decides how many tokens a medium costs.

    `shape` is (height, width) of an image, (samples,) of a sound, (height, width) of a clip; the rest is a clip's: the frames
    taken, of how many, and the rate.
    """

    kind: MediaKind
    shape: tuple[int, ...]
    frames: tuple[int, ...] = ()
    total_frames: int = 0
    fps: float = 0.0


SMALL: dict[str, Size] = {
    "image": Size(kind="image", shape=(32, 32)),
    "audio": Size(kind="audio", shape=(1600,)),
    "video": Size(kind="video", shape=(32, 32), frames=(0, 1, 2, 3), total_frames=4, fps=2.0),
}
# Sizes that cost more than one token wherever size matters.
LARGER: dict[str, Size] = {
    kind: replace(size, shape=shape) for (kind, size), shape in zip(SMALL.items(), [(130, 70), (4000,), (70, 50)], strict=True)
}


class MediaInputs:
    """Opens media for one processor, and makes blank ones."""

    def __init__(self, processor: ProcessorMixin, *, rules: MediaSection, arrays: bool = False) -> None:
        parts = vars(processor)
        self._rules = rules
        self._arrays = arrays
        self.kept = decoded_media(rules)
        self._features = parts.get("feature_extractor") or parts.get("audio_processor")
        self._videos = parts.get("video_processor")
        self.rate_hz = int(self._features.sampling_rate) if self._features is not None else 16_000
        self.mels = int(vars(self._features).get("feature_size", 1)) if self._features is not None else 1  # numbers of a frame of sound
        has = {"image": "image_processor" in parts, "video": self._videos is not None, "audio": self._features is not None}
        self.kinds: frozenset[str] = frozenset(kind for kind, present in has.items() if present)
        self.shapes_only: frozenset[str] = frozenset()  # kinds whose blank ones need no memory, see `blank`
        # Samples beyond which a sound is cut without a word; probe.py sets it right where the processor turns out to hear on.
        self.window: int | None = vars(self._features).get("n_samples") if self._features is not None else None
        self.flat_images = False  # the processor takes a list of images, not a list of them for each conversation

    def load(self, conversation: Conversation) -> dict[str, Any]:
        """Decoded media. Raises DataError for one that can't be used."""
        self._check_kinds(conversation)
        loaded: dict[str, list] = defaultdict(list)
        for part in conversation.media:
            if isinstance(part, Image):
                loaded["image"].append(self._image(part))
            elif isinstance(part, Audio):
                samples = self._samples(part)
                self._check_heard(len(samples), part)
                loaded["audio"].append(samples)
            else:
                frames, about = self._clip(part)
                loaded["video"].append(frames)
                loaded["metadata"].append(about)
        return self._arguments(loaded)

    def _image(self, part: Image) -> Pillow.Image | np.ndarray:
        if self.kept is not None:
            pixels = self.kept.pixels(part)
            return pixels if self._arrays else _picture(pixels)
        return (media.open_pixels if self._arrays else media.open_image)(part, rules=self._rules)

    def _samples(self, part: Audio) -> np.ndarray:
        if self.kept is not None:
            return self.kept.samples(part, self.rate_hz)
        return media.load_audio(part, self.rate_hz, rules=self._rules)

    def _clip(self, part: Video) -> tuple[np.ndarray, dict[str, Any]]:
        choose = partial(self._frames, part)
        if self.kept is None:
            return media.load_video(part, rules=self._rules, choose=choose)
        # All that `_frames` goes by beside the clip and its record.
        chosen_by = {"class": repr(type(self._videos)), **self._videos.to_dict(), "transformers": metadata.version("transformers")}
        return self.kept.frames(part, choose, chosen_by=chosen_by)

    def sizes(self, conversation: Conversation) -> list[Size]:
        """The size of every medium, from headers. Raises DataError."""
        self._check_kinds(conversation)
        sizes = []
        for part in conversation.media:
            if isinstance(part, Image):
                sizes.append(Size(kind="image", shape=media.image_size(part, rules=self._rules)))
            elif isinstance(part, Audio):
                samples = media.audio_samples(part, self.rate_hz, rules=self._rules)
                self._check_heard(samples, part)
                sizes.append(Size(kind="audio", shape=(samples,)))
            else:
                info, frames = media.video_frames(part, rules=self._rules, choose=partial(self._frames, part))
                shape = (info.height, info.width)
                sizes.append(Size(kind="video", shape=shape, frames=tuple(frames), total_frames=info.frames, fps=info.fps))
        return sizes

    def outline(self, conversation: Conversation) -> dict[str, Any]:
        """Blank media of the conversation's sizes, see `blank`. Raises DataError."""
        return self.blank(self.sizes(conversation), shapes_only=True)

    def sizes_of(self, arguments: dict[str, Any]) -> list[Size]:
        """The sizes of what `load` or `blank` returned, by kind."""
        images = arguments.get("images", ())
        sizes = [Size(kind="image", shape=_shape(picture)) for row in ([images] if self.flat_images else images) for picture in row]
        sizes += [Size(kind="audio", shape=(len(samples),)) for samples in arguments.get("audio", ())]
        for clips, about in zip(arguments.get("videos", ()), arguments.get("video_metadata", ()), strict=True):
            for clip, known in zip(clips, about, strict=True):
                frames = tuple(known["frames_indices"])
                sizes.append(
                    Size(kind="video", shape=clip.shape[1:3], frames=frames, total_frames=known["total_num_frames"], fps=known["fps"])
                )
        return sizes

    def blank(self, sizes: Sequence[Size], *, shapes_only: bool = False) -> dict[str, Any]:
        """Grey or silent media of these sizes.

        With `shapes_only`, images and clips of the kinds in `self.shapes_only` are tensors on torch's meta device: a processor works
        out their layout at no cost, whatever their size.
        """
        from PIL import Image as Pillow

        meta = self.shapes_only if shapes_only else frozenset()
        made: dict[str, list] = defaultdict(list)
        for size in sizes:
            if size.kind == "audio":
                made["audio"].append(np.zeros(size.shape[0], np.float32))
                continue
            height, width = size.shape
            if size.kind == "image":
                blank = torch.empty(3, height, width, dtype=torch.uint8, device="meta") if "image" in meta else None
                made["image"].append(Pillow.new("RGB", (width, height), (128, 128, 128)) if blank is None else blank)
            else:
                shape = (len(size.frames), height, width, 3)
                made["video"].append(np.full(shape, 128, np.uint8))
                made["metadata"].append(_metadata(size))
        return self._arguments(made)

    def _arguments(self, loaded: dict[str, list]) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if loaded.get("image"):
            arguments["images"] = loaded["image"] if self.flat_images else [loaded["image"]]
        if loaded.get("audio"):
            arguments |= {"audio": loaded["audio"], "sampling_rate": self.rate_hz}
        if loaded.get("video"):
            # Frames were chosen when the clip was opened; the processor must not choose again. Some (Muse) write the frames' times from
            # what they return of the clip, and look for it without asking for it.
            about = {"video_metadata": [loaded["metadata"]], "return_metadata": True}
            arguments |= {"videos": [loaded["video"]], "do_sample_frames": False, **about}
        return arguments

    def _check_kinds(self, conversation: Conversation) -> None:
        for part in conversation.media:
            if kind_of(part) not in self.kinds:
                raise DataError(
                    f"the record has {kind_of(part)} input ({part.name}), which this model's processor does not take",
                    reason="media_not_supported",
                    where=str(conversation.origin),
                    fix=f"use a model for it, or drop the medium; this one takes {', '.join(sorted(self.kinds)) or 'text only'}",
                )

    def _check_heard(self, samples: int, part: Audio) -> None:
        most = self.window
        if most is not None and samples > most:
            raise DataError(
                f"the sound lasts {samples / self.rate_hz:.1f} s, the model hears {most / self.rate_hz:.0f} s",
                reason="audio_too_long",
                where=part.name,
                fix="cut the recording into shorter records",
            )

    def _frames(self, part: Video, info: media.VideoInfo) -> list[int]:
        """The frames to take: as the record asks, else as the processor chooses by its own settings from the record's stretch."""
        asked = media.asked_frames(part, info)
        if asked is not None:
            return asked
        from transformers.video_utils import VideoMetadata

        first, last = media.window(part, info)
        count = last - first + 1
        settings = self._videos.to_dict()
        wanted = {name: settings[name] for name in inspect.signature(self._videos.sample_frames).parameters if name in settings}
        about = VideoMetadata(
            total_num_frames=count, fps=info.fps, duration=count / info.fps, frames_indices=None, height=info.height, width=info.width
        )
        if wanted.get("num_frames") is None and wanted.get("fps") is None:
            return list(range(first, last + 1))
        try:
            return [first + int(frame) for frame in self._videos.sample_frames(about, **wanted)]
        except (ValueError, ZeroDivisionError) as error:
            raise DataError(
                f"the processor can't choose frames: {error}",
                reason="video_frames",
                where=part.name,
                fix="set `num_frames` on the record's video",
            ) from error


def _picture(pixels: np.ndarray) -> Pillow.Image:
    from PIL import Image as Pillow

    return Pillow.fromarray(pixels)


def _shape(picture: Pillow.Image | np.ndarray | torch.Tensor) -> tuple[int, int]:
    """(height, width) of a picture, a pixel array [height, width, 3], or a blank one [3, height, width]."""
    if isinstance(picture, torch.Tensor):
        return tuple(picture.shape[1:])
    return picture.shape[:2] if isinstance(picture, np.ndarray) else (picture.height, picture.width)


def _metadata(size: Size) -> dict[str, Any]:
    height, width = size.shape
    return {
        "total_num_frames": size.total_frames,
        "fps": size.fps,
        "duration": size.total_frames / size.fps,
        "frames_indices": list(size.frames),
        "height": height,
        "width": width,
    }
