"""What `media.cache_decoded` saves: media decoded, shrunk and resampled, against the same arrays read back from the disk.

    python benchmarks/decoded.py

One thread, alternating runs in one process, CPU time; the files have just been written, so the system has them in memory. The media: a
photograph of 12 megapixels shrunk to 512x512, eight frames of ten seconds of 640x360, half a minute of stereo sound at 44.1 kHz resampled
to 16 kHz. What is read back is held against what is decoded.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.image_path import photo  # noqa: E402
from foveate.config.media import MediaSection  # noqa: E402
from foveate.data.media import VideoInfo, even_frames, load_audio, load_video, open_pixels  # noqa: E402
from foveate.data.media.kept import decoded_media  # noqa: E402
from foveate.types import Audio, Image, Video  # noqa: E402

REPEATS, RATE_HZ, FRAMES = 9, 16_000, 8
WIDTH, HEIGHT, SECONDS = 640, 360, 10
FORMS = ("wav", "flac", "mp3")
Load = Callable[[], np.ndarray]


def write(folder: Path) -> None:
    """The media."""
    import av
    import soundfile

    photo(0, 4000, 3000).save(folder / "photo.jpg", quality=90)
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        scene = np.asarray(photo(1, 2 * WIDTH, 2 * HEIGHT))
        for at in range(30 * SECONDS):
            seen = np.ascontiguousarray(scene[at : at + HEIGHT, 2 * at : 2 * at + WIDTH])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(seen, format="rgb24")))
        container.mux(stream.encode())
    noise = np.random.default_rng(0).normal(0, 0.1, (44_100 * 30, 2))
    for form in FORMS:
        soundfile.write(folder / f"sound.{form}", noise, 44_100)


def ways(folder: Path) -> dict[str, tuple[Load, Load]]:
    """For each medium: decoding it, and reading it back."""
    rules = MediaSection(cache_decoded="disk", cache_folder=str(folder / "kept"))
    kept = decoded_media(rules)
    image, video = Image(path=folder / "photo.jpg", max_pixels=512 * 512), Video(path=folder / "clip.mp4")

    def choose(info: VideoInfo) -> list[int]:
        return even_frames(info.frames, FRAMES)

    found: dict[str, tuple[Load, Load]] = {
        "photograph, 12 megapixels": (lambda: open_pixels(image, rules=rules), lambda: kept.pixels(image)),
        f"clip, {FRAMES} frames of {SECONDS} s": (
            lambda: load_video(video, rules=rules, choose=choose)[0],
            lambda: kept.frames(video, choose, chosen_by=FRAMES)[0],
        ),
    }
    for form in FORMS:
        audio = Audio(path=folder / f"sound.{form}")
        found[f"sound, 30 s of {form}"] = (
            lambda audio=audio: load_audio(audio, RATE_HZ, rules=rules),
            lambda audio=audio: kept.samples(audio, RATE_HZ),
        )
    return found


def measure(decode: Load, read: Load) -> tuple[float, float, list[float]]:
    """Median milliseconds of both, and the ratios of neighbours."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for way, spent in zip((decode, read), times, strict=True):
            began = time.process_time()
            way()
            spent.append(1000 * (time.process_time() - began))
    return statistics.median(times[0]), statistics.median(times[1]), sorted(one / other for one, other in zip(*times, strict=True))


def main() -> None:
    """Print a line for each medium."""
    print("decoded media read back, against decoding them: CPU time, one thread")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for name, (decode, read) in ways(Path(folder)).items():
            read()  # keeps it
            same = "the same bits" if np.array_equal(decode(), read()) else "DIFFERENT"
            slow, fast, ratios = measure(decode, read)
            spread = f"{statistics.median(ratios):.0f}x ({ratios[0]:.0f} to {ratios[-1]:.0f})"
            print(f"  {name:<27} {slow:6.1f} ms and {fast:4.1f} ms, {spread}; {read().nbytes / 1e6:.1f} MB, {same}")


if __name__ == "__main__":
    main()
