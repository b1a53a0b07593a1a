"""A process with little memory that opens mutated media one by one and says what came of each. Started by test_media.py.

Anything but a DataError ends it with a traceback, which is the finding.
"""

from __future__ import annotations

import resource
import struct
import sys
from pathlib import Path

import numpy as np

from foveate.config.media import MediaSection
from foveate.data import media
from foveate.errors import DataError
from foveate.types import Audio, Image, Video

RULES = MediaSection(max_image_pixels=4_000_000, max_file_mb=1, max_audio_s=60, max_video_s=60)
_RATE_HZ = 16_000


def opened(kind: str, data: bytes) -> None:
    """Header and content; what the header says must be what comes, where both can be read."""
    if kind == "Image":
        picture(Image(data=data, max_pixels=1000), RULES.model_copy(update={"animated": "first_frame"}))
        picture(Image(data=data), RULES)
    elif kind == "Audio":
        told = said(lambda: media.audio_samples(Audio(data=data), _RATE_HZ, rules=RULES))
        samples = media.load_audio(Audio(data=data), _RATE_HZ, rules=RULES)
        assert samples.dtype == "float32" and told == len(samples), f"{told} but {len(samples)}"
    else:
        told = said(lambda: media.video_frames(Video(data=data, num_frames=4), rules=RULES))
        frames, metadata = media.load_video(Video(data=data, num_frames=4), rules=RULES)
        assert told is not None and told[1] == metadata["frames_indices"] and frames.shape[1:3] == (told[0].height, told[0].width)


def picture(image: Image, rules: MediaSection) -> None:
    """By its header, by Pillow and by the faster reader of JPEGs."""
    told = said(lambda: media.image_size(image, rules=rules))
    pixels = said(lambda: media.open_pixels(image, rules=rules))
    slow = said(lambda: media.open_image(image, rules=rules))
    assert (pixels is None) == (slow is None), "two readers, two verdicts"
    shown = media.open_image(image, rules=rules)
    assert shown.mode == "RGB" and told == (shown.height, shown.width), f"{told} but {shown}"
    assert np.array_equal(np.asarray(shown), pixels), "two readers, other pixels"


def said(look):
    """What a look at the header gives; None where it is refused."""
    try:
        return look()
    except DataError:
        return None


def main(folder: Path, first: int, memory_bytes: int) -> None:
    """Files as test_media.py wrote them, from number `first` on; a line for each: begin, then how it ended."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with (folder / "mutations.bin").open("rb") as file:
        number = 0
        while head := file.read(12):
            name_size, size = struct.unpack("<IQ", head)
            kind, _, name = file.read(name_size).decode().partition(" ")
            data = file.read(size)
            number += 1
            if number <= first:
                continue
            print("begin", number - 1, kind, name, flush=True)
            try:
                opened(kind, data)
                outcome = "opened"
            except DataError as error:
                outcome = f"refused {error.reason}" if error.fix and error.problem else f"WRONG a DataError without a fix: {error}"
            print("end", outcome, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
