"""Images: any usual format to RGB, upright, by the rules that the package states. Sizes come from headers and are capped first."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps
from PIL.ExifTags import Base as Exif

from foveate.config.media import MediaSection
from foveate.data.files import needs_package
from foveate.data.media.blob import blob_error, open_blob
from foveate.data.media.jpeg import jpeg_pixels
from foveate.data.media.sniff import IMAGES, sniff
from foveate.errors import DataError
from foveate.types import Image

_READERS = {"jpeg": ("JPEG", "MPO"), "png": ("PNG",), "gif": ("GIF",), "bmp": ("BMP",), "tiff": ("TIFF",), "webp": ("WEBP",),
            "avif": ("AVIF",), "heic": ("HEIF",)}  # fmt: skip
# What Pillow's readers raise on damaged files, found by feeding them some.
_DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
_PILLOWS_LIMIT = 89_478_485  # pixels; Pillow's own, process-wide: it opens nothing of more than twice as many
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that exchange height and width


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFrame:
    """An image as it is stored and as it is seen, (height, width) each; the EXIF orientation, 1..8, leads from one to the other."""

    stored: tuple[int, int]
    orientation: int
    upright: tuple[int, int]


def open_image(image: Image, *, rules: MediaSection) -> Pillow.Image:
    """Decode an image: RGB, upright, shrunk to `image.max_pixels` if that is set.

    DataError: image_missing, image_empty, image_not_image, image_truncated, image_corrupt, image_too_large (more than
    `rules.max_image_pixels`, seen before decoding), image_animated, image_mode. FoveateError when a reader's package is missing.
    """
    with _opened(image, rules) as picture:
        rgb = _decoded(picture, image)
    return _within(rgb, image)


def open_pixels(image: Image, *, rules: MediaSection) -> np.ndarray:
    """The pixels of `open_image`, [height, width, 3] uint8: the same ones, sooner where the file is a plain JPEG. The same DataErrors."""
    with _opened(image, rules) as picture:
        plain = picture.mode == "RGB" and picture.getexif().get(Exif.Orientation, 1) == 1
        pixels = _jpeg_pixels(picture) if plain else None
        rgb = _decoded(picture, image) if pixels is None else None
    if pixels is not None and _shrunk(*pixels.shape[:2], image.max_pixels) == pixels.shape[:2]:
        return pixels
    return np.array(_within(Pillow.fromarray(pixels) if rgb is None else rgb, image))


def open_small(image: Image, *, rules: MediaSection, edge: int, grey: bool = False) -> Pillow.Image:
    """`open_image` squeezed into `edge` x `edge`, for comparing, its colours left out with `grey`. The same DataErrors.

    A JPEG is decoded no further than that needs.
    """
    with _opened(image, rules) as picture:
        picture.draft("L" if grey else None, (edge, edge))
        rgb = _decoded(picture, image, scaled=True)
    return (rgb.convert("L") if grey else rgb).resize((edge, edge), Pillow.Resampling.BICUBIC, reducing_gap=2.0)


def _decoded(picture: Pillow.Image, image: Image, *, scaled: bool = False) -> Pillow.Image:
    """RGB and upright; `scaled` where Pillow was asked for less than the whole picture."""
    pixels = None if scaled else _jpeg_pixels(picture)
    if pixels is not None:
        whole = Pillow.fromarray(pixels)
        whole.info = picture.info  # the orientation is in it
        return _rgb(ImageOps.exif_transpose(whole), image)
    # Another library may have turned this process-wide switch on; grey in place of lost pixels is never right here.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    told = picture.size
    picture.load()
    if picture.size != told:  # a HEIC file's header and its pixels may differ; lengths were taken from the header
        raise ValueError(f"its header says {told[0]}x{told[1]}, but it holds {picture.width}x{picture.height} pixels")
    return _rgb(ImageOps.exif_transpose(picture), image)


def _jpeg_pixels(picture: Pillow.Image) -> np.ndarray | None:
    """A colour or grey JPEG as it is stored; None for any other file. ValueError where data is lost, which Pillow would fill with grey."""
    if picture.format != "JPEG" or picture.mode not in ("RGB", "L"):
        return None
    picture.fp.seek(0)
    return jpeg_pixels(picture.fp.read(), height=picture.height, width=picture.width, grey=picture.mode == "L")


def _within(rgb: Pillow.Image, image: Image) -> Pillow.Image:
    height, width = _shrunk(rgb.height, rgb.width, image.max_pixels)
    return rgb if (width, height) == rgb.size else rgb.resize((width, height), Pillow.Resampling.BICUBIC)


def image_size(image: Image, *, rules: MediaSection) -> tuple[int, int]:
    """(height, width) of what `open_image` returns, from the header alone. The same DataErrors, but those of damaged pixels."""
    with _opened(image, rules) as picture:
        width, height = picture.size
        if _may_be_turned(picture) and picture.getexif().get(Exif.Orientation) in _TURNED:
            width, height = height, width
    return _shrunk(height, width, image.max_pixels)


def image_frame(image: Image, *, rules: MediaSection) -> ImageFrame:
    """How the image is stored and how it is seen, from the header alone. The DataErrors of `image_size`."""
    with _opened(image, rules) as picture:
        width, height = picture.size
        if picture.format == "TIFF":  # Pillow gives its size as turned already
            tags = picture.tag_v2
            turn, width, height = tags.get(Exif.Orientation, 1), tags[Exif.ImageWidth], tags[Exif.ImageLength]
        else:
            turn = picture.getexif().get(Exif.Orientation, 1) if _may_be_turned(picture) else 1
    turn = turn if turn in range(1, 9) else 1  # as Pillow's own turning has it
    return ImageFrame(stored=(height, width), orientation=turn, upright=(width, height) if turn in _TURNED else (height, width))


def _may_be_turned(picture: Pillow.Image) -> bool:
    """Whether looking for an orientation is worth it: Pillow decodes all of a PNG to find one, so its chunks are listed first."""
    if picture.format == "PNG":
        blob, chunks, at = picture.fp, set(), 8
        while len(head := _read_at(blob, at, 8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            chunks.add(kind)
            at += length + 12  # length, type and checksum are four bytes each
        return bool(chunks & {b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
    return picture.format != "TIFF"  # Pillow gives a TIFF's size as turned already


def _read_at(blob: IO[bytes], at: int, count: int) -> bytes:
    place = blob.tell()
    blob.seek(at)
    found = blob.read(count)
    blob.seek(place)
    return found


@contextmanager
def _opened(image: Image, rules: MediaSection):
    """The picture, its header read and checked; what readers raise on damage, now or inside the block, becomes a DataError."""
    with open_blob(image, "image", rules=rules) as blob, warnings.catch_warnings():
        kind = sniff(blob.head)
        if kind not in IMAGES:
            raise blob_error(image, "image", blob.head, kind)
        _check_reader(kind)
        # Pillow's warning of a big picture: the cap below decides. Its warnings of odd metadata: the pixels decide.
        warnings.simplefilter("ignore")
        Pillow.MAX_IMAGE_PIXELS = max(_PILLOWS_LIMIT, rules.max_image_pixels)  # lest it refuse what the recipe allows
        try:
            with Pillow.open(blob.file, formats=_READERS[kind]) as picture:
                _check_header(picture, image, rules)
                yield picture
        except Pillow.DecompressionBombError:
            problem = f"it has more than {2 * Pillow.MAX_IMAGE_PIXELS:,} pixels, the limit is {rules.max_image_pixels:,}"
            raise _too_large(image, problem) from None
        except _DAMAGE as error:
            # Pillow names the open file there, and its place in memory.
            unknown = isinstance(error, Pillow.UnidentifiedImageError)
            text = "its header can't be read" if unknown else str(error) or type(error).__name__
            cut = "truncated" in text.lower() or isinstance(error, EOFError) or "unexpected end" in text.lower()
            raise DataError(
                f"a damaged {kind}: {text}", reason="image_truncated" if cut else "image_corrupt", where=image.name,
                fix="restore the file, or remove the record",
            ) from None  # fmt: skip


def _check_header(picture: Pillow.Image, image: Image, rules: MediaSection) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise DataError(f"its size is {width}x{height}", reason="image_corrupt", where=image.name, fix="restore the file")
    if width * height > rules.max_image_pixels:
        raise _too_large(image, f"{width}x{height} is {width * height:,} pixels, the limit is {rules.max_image_pixels:,}")
    if rules.animated == "refuse" and _many(picture) and (frames := picture.n_frames) > 1:
        raise DataError(
            f"it has {frames} frames or pages",
            reason="image_animated",
            where=image.name,
            fix="save the one that is meant as an image of its own, or set `media: {animated: first_frame}`",
        )


def _many(picture: Pillow.Image) -> bool:
    return picture.format in ("GIF", "PNG", "WEBP", "TIFF", "AVIF") and picture.is_animated


def _too_large(image: Image, problem: str) -> DataError:
    return DataError(problem, reason="image_too_large", where=image.name, fix="scale it down, or raise `media.max_image_pixels`")


def _check_reader(kind: str) -> None:
    if kind == "heic":
        try:
            import pillow_heif
        except ImportError:
            raise needs_package("pillow-heif", "heic", "reading HEIC images") from None
        pillow_heif.register_heif_opener()
    if kind == "avif":
        from PIL import features

        if not features.check("avif"):
            raise needs_package("pillow>=11.3", "", "reading AVIF images")


def _shrunk(height: int, width: int, max_pixels: int | None) -> tuple[int, int]:
    """Height and width, scaled down evenly to `max_pixels` at most; a side never falls below 1."""
    if max_pixels is None or height * width <= max_pixels:
        return height, width
    scale = math.sqrt(max_pixels / (height * width))
    return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))


def _rgb(picture: Pillow.Image, image: Image) -> Pillow.Image:
    mode = picture.mode
    if mode == "RGB" and "transparency" not in picture.info:
        return picture.copy() if picture.info else picture
    if mode.startswith("I;16") or mode in ("I", "F"):
        return Pillow.fromarray(_eight_bit(np.asarray(picture), image)).convert("RGB")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        cut_out = picture.convert("RGBA")
        paper = Pillow.new("RGBA", cut_out.size, "white")
        return Pillow.alpha_composite(paper, cut_out).convert("RGB")
    if mode in ("1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"):
        return picture.convert("RGB")
    raise DataError(f"its colour mode {mode} has no rule", reason="image_mode", where=image.name, fix="save it as RGB or grey")


def _eight_bit(values: np.ndarray, image: Image) -> np.ndarray:
    """Grey values [height, width] of 16 or 32 bits or floats, scaled to uint8; see the module's rules."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError("it has values that are NaN or infinite", reason="image_corrupt", where=image.name, fix="export it again")
    least, most = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        low, high = (0.0, 1.0) if least >= 0 and most <= 1 else (least, most)
    else:
        low, high = (0.0, 65535.0) if least >= 0 and most <= 65535 else (least, most)
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.floor((values.astype(np.float64) - low) * (255 / (high - low)) + 0.5).astype(np.uint8)
