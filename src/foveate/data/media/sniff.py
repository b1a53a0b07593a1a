"""What a file is, by its first bytes; never by its name."""

from __future__ import annotations

_IMAGE_BRANDS = {b"heic": "heic", b"heix": "heic", b"hevc": "heic", b"mif1": "heic", b"msf1": "heic", b"avif": "avif", b"avis": "avif"}
_AUDIO_BRANDS = (b"M4A ", b"M4B ")

IMAGES = frozenset({"jpeg", "png", "gif", "bmp", "tiff", "webp", "heic", "avif"})
SOUNDS = frozenset({"wav", "flac", "ogg", "mp3", "aiff", "m4a", "aac", "au"})
CLIPS = frozenset({"mp4", "matroska", "avi", "mpeg"})
SUFFIXES = {
    "jpeg": ("jpg", "jpeg", "jfif", "jpe"), "png": ("png", "apng"), "gif": ("gif",), "bmp": ("bmp", "dib"), "tiff": ("tif", "tiff"),
    "webp": ("webp",), "heic": ("heic", "heif", "hif"), "avif": ("avif",), "wav": ("wav", "wave"), "flac": ("flac",),
    "ogg": ("ogg", "oga", "opus"), "mp3": ("mp3", "mp2"), "aiff": ("aif", "aiff"), "m4a": ("m4a", "mp4", "aac"), "aac": ("aac",),
    "au": ("au", "snd"), "mp4": ("mp4", "mov", "m4v", "m4a", "3gp"), "matroska": ("mkv", "mka", "webm", "weba"),
    "avi": ("avi",), "mpeg": ("mpg", "mpeg", "ts"),
}  # fmt: skip


def sniff(head: bytes) -> str | None:
    """The format's name (`jpeg`, `wav`, `mp4` ...) from the first 32 bytes or more; None when it is no known one."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] in (b"RIFF", b"RF64"):
        return {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "m4a" if brand in _AUDIO_BRANDS else _IMAGE_BRANDS.get(brand, "mp4")
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0:
        return "mp3"  # an MPEG audio frame without a tag before it
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"  # the same of ADTS
    return None


def sniff_text(head: bytes) -> str | None:
    """What a file that is no medium seems to be, for the message: an HTML page, a Git LFS pointer ..."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    for magic, name in _TEXTS:
        if start.startswith(magic):
            return name
    return "text" if head and all(9 <= byte < 127 for byte in head[:64]) else None


_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"), (b"BM", "bmp"),
    (b"II*\x00", "tiff"), (b"MM\x00*", "tiff"), (b"II+\x00", "tiff"), (b"MM\x00+", "tiff"),
    (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b".snd", "au"),
    (b"\x1a\x45\xdf\xa3", "matroska"), (b"\x00\x00\x01\xba", "mpeg"), (b"\x00\x00\x01\xb3", "mpeg"),
)  # fmt: skip
_TEXTS = (
    (b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"<?xml", "an XML file"), (b"<svg", "an SVG drawing"),
    (b"%pdf", "a PDF file"), (b"version https://git-lfs", "a Git LFS pointer"), (b"{", "a JSON text"), (b"pk\x03\x04", "a ZIP archive"),
)  # fmt: skip
