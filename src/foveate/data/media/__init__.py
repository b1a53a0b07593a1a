"""The one door to images, sounds and clips: what a conversation refers to is opened here and nowhere else, never from the network.

Images come out RGB and upright, whatever their file holds:

- EXIF orientation is applied exactly once (Pillow's TIFF reader does it by itself);
- transparency is laid over white; palettes are resolved;
- 16-bit grey is scaled from the range of its type, 0..65535, to 0..255; 32-bit integers and floats from 0..65535 or 0..1 when their
  values lie inside it, else from their own least to their own greatest value;
- CMYK and YCbCr are converted by Pillow, Adobe's inverted CMYK included;
- animations and multi-page files are refused, as one frame of them would be a guess; with `media: {animated: first_frame}` their
  first frame or page is the image. Of a HEIC file with several pictures it is the primary one, of a camera's MPO the first.

The format is sniffed from the content. Sizes come from headers and are capped before anything is decoded. A file that ends too early
is an error, never filled with grey.
"""

from __future__ import annotations

from foveate.data.media.clip import VideoInfo, asked_frames, even_frames, load_video, video_frames, video_info, window
from foveate.data.media.picture import ImageFrame, image_frame, image_size, open_image, open_pixels, open_small
from foveate.data.media.sniff import SUFFIXES, sniff
from foveate.data.media.sound import audio_samples, load_audio
from foveate.types import Media

__all__ = [
    "ImageFrame", "VideoInfo", "asked_frames", "audio_samples", "even_frames", "has_wrong_suffix", "image_frame", "image_size",
    "load_audio", "load_video", "open_image", "open_pixels", "open_small", "video_frames", "video_info", "window",
]  # fmt: skip


def has_wrong_suffix(media: Media) -> bool:
    """Whether a file's suffix belongs to another format than its content; such files are read by content."""
    if media.path is None or not media.path.suffix:
        return False
    try:
        with media.path.open("rb", buffering=0) as file:
            kind = sniff(file.read(64))
    except IsADirectoryError:  # a folder of frames
        return False
    return kind is not None and media.path.suffix.lower().lstrip(".") not in SUFFIXES[kind]
