"""Pictures that show the same though their files differ: saved again, in another format or size, somewhat brighter.

Two steps. A perceptual hash of 64 bits (ImageHash's pHash: signs of a picture's lowest frequencies) finds candidates, at most
`NEAR_BITS` apart; pictures of different things are about 32 apart. Then candidates are compared: squeezed to 128x128, their brightness
and contrast evened out, no cell of 8x8 pixels may differ by more than `_MOST_DIFFERENT`. So forms that differ in what is filled in, or
charts that differ in a bar, are not taken for one another. Pictures without contrast (blank pages, single colours) are left out, as
all of them look alike. Cropped or mirrored copies are not found.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from foveate.config.media import MediaSection
from foveate.data.media import open_small
from foveate.types import Image

NEAR_BITS = 8
FLAT = 0  # the hash of a picture without contrast
_LEAST_CONTRAST = 4.0  # standard deviation of grey values, 0..255
# Grey values at a contrast of 50. Copies saved at quality 30, at half size or 15% brighter stay below 12; forms of one kind that are
# filled in differently come to 37 and more.
_MOST_DIFFERENT = 18.0
_EDGE, _CELLS = 128, 16
_HASHED_EDGE = 60  # an eighth of 480: JPEG decoders scale by eighths
_BLOCK = 4096


def picture_hash(image: Image, *, rules: MediaSection) -> int:
    """64 bits that hardly change when a picture is saved again; `FLAT` for one without contrast. DataError for a damaged one."""
    from imagehash import phash

    small = open_small(image, rules=rules, edge=_HASHED_EDGE, grey=True)
    if np.asarray(small).std() < _LEAST_CONTRAST:
        return FLAT
    return int(np.packbits(phash(small).hash.ravel()).view(">u8")[0])


def likeness_view(image: Image, *, rules: MediaSection) -> np.ndarray:
    """What pictures are compared by: [128, 128, 3] float32 with mean 0 and a contrast of 50. DataError for a damaged one."""
    pixels = np.asarray(open_small(image, rules=rules, edge=2 * _EDGE).reduce(2), dtype=np.float32)
    return (pixels - pixels.mean()) * (50 / max(float(pixels.std()), _LEAST_CONTRAST))


def look_alike(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two views show the same, in every cell."""
    cell = _EDGE // _CELLS
    differences = np.abs(first - second).mean(axis=2).reshape(_CELLS, cell, _CELLS, cell).mean(axis=(1, 3))
    return float(differences.max()) <= _MOST_DIFFERENT


def near(wanted: np.ndarray, among: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(place in `wanted`, places in `among` that are at most NEAR_BITS apart, nearest first) for each that has any.

    `wanted` [n] and `among` [m] are hashes, uint64.
    """
    for i, value in enumerate(wanted):
        if value == FLAT:
            continue
        found, distances = [], []
        for start in range(0, len(among), _BLOCK * 16):
            block = among[start : start + _BLOCK * 16]
            apart = np.bitwise_count(block ^ value)
            hits = np.flatnonzero((apart <= NEAR_BITS) & (block != FLAT))
            found.append(hits + start)
            distances.append(apart[hits])
        places = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
        if len(places):
            yield i, places[np.argsort(np.concatenate(distances), kind="stable")]
