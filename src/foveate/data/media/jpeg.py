"""Plain JPEGs to an array of pixels, the same as Pillow's, in two thirds of the time.

Pillow hands libjpeg-turbo a file line by line and keeps four bytes a pixel, which have to be copied into three; simplejpeg calls the
same library once. What it warns of or can't read is left to Pillow, whose verdict counts, but for data that ends before the picture
does: Pillow fills the rest with grey without a word.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image as Pillow


def jpeg_pixels(data: bytes, *, height: int, width: int, grey: bool = False) -> np.ndarray | None:
    """[height, width, 3] uint8, RGB, as the file holds them (not turned), or [height, width] with `grey`; None where Pillow is to be asked.

    `height` and `width` are those that Pillow read in the header: they were held against the limits, so no other size is decoded.
    ValueError when the data ends before the picture does.
    """
    if not _agrees():
        return None
    import simplejpeg

    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):
            return None
        pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY" if grey else "RGB", fastdct=False, fastupsample=False, strict=True)
    except ValueError as error:
        if "premature end" in str(error).lower():
            raise ValueError(f"truncated: {error}") from None
        return None
    return pixels[:, :, 0] if grey else pixels


@cache
def _agrees() -> bool:
    """Whether simplejpeg is there, and its build of libjpeg-turbo gives the pixels of Pillow's."""
    try:
        import simplejpeg
    except ImportError:
        return False
    noise = Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        file = io.BytesIO()
        noise.save(file, "JPEG", quality=80, subsampling=subsampling)
        with Pillow.open(file) as picture:
            if not np.array_equal(np.asarray(picture), simplejpeg.decode_jpeg(file.getvalue(), colorspace="RGB")):
                return False
    return True
