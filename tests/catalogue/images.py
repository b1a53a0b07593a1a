"""Bad images, and odd ones that are fine."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.catalogue.case import Accepted, BadRecord, Row, holding
from tests.unit.data.build import corner_picture, encoded, noise_picture

PNG = encoded(corner_picture(24, 20), "PNG")
JPEG = encoded(noise_picture(), "JPEG", quality=95)


def shown(name: str, content: bytes | None) -> Callable[[Path], Row]:
    """A row about an image of this content."""
    return holding("images", name, content, "image", "What is it?", "red")


def valued(value: object) -> Callable[[Path], Row]:
    """A row whose image is this value."""
    return lambda _folder: {"image": value, "question": "What is it?", "answer": "red"}


def animation() -> bytes:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def a_folder(folder: Path) -> Row:
    (folder / "images" / "deep").mkdir(parents=True, exist_ok=True)
    return {"image": "images/deep", "question": "What is it?", "answer": "red"}


def a_pipe(folder: Path) -> Row:
    (folder / "images").mkdir(exist_ok=True)
    os.mkfifo(folder / "images" / "pipe.png")
    return {"image": "images/pipe.png", "question": "What is it?", "answer": "red"}


def broken_header() -> bytes:
    return PNG[:20] + bytes([PNG[20] ^ 0x40]) + PNG[21:]  # the height in IHDR: the checksum no longer fits


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 8]) + data[middle + 8 :]


def huge() -> bytes:
    return encoded(Image.new("1", (20_000, 20_000)), "PNG")


BAD = [
    BadRecord(title="image file missing", reason="image_missing", says="no such image", make=shown("gone.png", None)),
    BadRecord(title="image of zero bytes", reason="image_empty", says="0 bytes", make=shown("zero.png", b"")),
    BadRecord(title="truncated JPEG", reason="image_truncated", says="truncated", make=shown("cut.jpg", JPEG[:-400])),
    BadRecord(title="truncated PNG", reason="image_truncated", says="", make=shown("cut.png", encoded(noise_picture(), "PNG")[:-300])),
    BadRecord(
        title="HTML page saved as .jpg",
        reason="image_not_image",
        says="an HTML page",
        make=shown("page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    ),
    BadRecord(
        title="Git LFS pointer in place of the image",
        reason="image_not_image",
        says="Git LFS",
        make=shown("lfs.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    ),
    BadRecord(
        title="JSON error message saved as .png", reason="image_not_image", says="a JSON text", make=shown("e.png", b'{"error": 403}')
    ),
    BadRecord(title="PDF where an image belongs", reason="image_not_image", says="a PDF file", make=shown("scan.jpg", b"%PDF-1.7\n%....")),
    BadRecord(title="SVG drawing", reason="image_not_image", says="an SVG drawing", make=shown("a.svg", b"<svg xmlns='x'></svg>")),
    BadRecord(title="random bytes as .jpg", reason="image_not_image", says="", make=shown("noise.jpg", bytes(range(200, 255)) * 9)),
    BadRecord(title="image over the pixel cap", reason="image_too_large", says="the limit is 100,000,000", make=shown("huge.png", huge())),
    BadRecord(title="animated GIF", reason="image_animated", says="3 frames", make=shown("moves.gif", animation())),
    BadRecord(title="PNG with a damaged header", reason="image_corrupt", says="", make=shown("header.png", broken_header())),
    BadRecord(
        title="flipped bytes in a PNG", reason="image_corrupt", says="", make=shown("flip.png", flipped(encoded(noise_picture(), "PNG")))
    ),
    BadRecord(title="folder where an image belongs", reason="image_missing", says="is a folder", make=a_folder),
    BadRecord(title="named pipe where an image belongs", reason="image_unreadable", says="no regular file", make=a_pipe),
    BadRecord(
        title="URL without media.fetch", reason="media_url", says="https://example.org/1.jpg", make=valued("https://example.org/1.jpg")
    ),
    BadRecord(title="path that begins with ~", reason="media_path", says="`~`", make=valued("~/1.jpg")),
    BadRecord(title="path with a null byte", reason="media_path", says="can't be one", make=valued("a\0b.jpg")),
    BadRecord(title="data URI that is not base64", reason="bad_base64", says="base64", make=valued("data:image/png;base64,%%%%")),
    BadRecord(title="data URI without its comma", reason="bad_base64", says="comma", make=valued("data:image/png;base64")),
    BadRecord(
        title="base64 of something else",
        reason="image_not_image",
        says="",
        make=valued("data:image/png;base64," + base64.b64encode(b"<html>not found</html>").decode()),
    ),
    BadRecord(title="number where an image belongs", reason="wrong_type", says="int", make=valued(7)),
    BadRecord(
        title="image object without bytes or path", reason="image_missing", says="neither", make=valued({"bytes": None, "path": None})
    ),
]

ODD = [
    Accepted(title="PNG named .jpg", make=shown("really_png.jpg", PNG)),
    Accepted(
        title="EXIF-rotated JPEG",
        make=shown(
            "turned.jpg",
            encoded(corner_picture(24, 20), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
        ),
    ),
    Accepted(title="CMYK JPEG", make=shown("print.jpg", encoded(corner_picture(24, 20).convert("CMYK"), "JPEG"))),
    Accepted(title="16-bit PNG", make=shown("deep.png", encoded(Image.new("I;16", (24, 20), 40_000), "PNG"))),
    Accepted(
        title="palette with transparency", make=shown("palette.png", encoded(corner_picture(24, 20).convert("P"), "PNG", transparency=0))
    ),
    Accepted(title="1x1 image", make=shown("dot.png", encoded(Image.new("RGB", (1, 1)), "PNG"))),
    Accepted(title="data URI", make=valued("data:image/png;base64," + base64.b64encode(PNG).decode())),
]
