"""`media:` what may be opened, and how far."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from foveate.config.base import FilePath, Section

# `images.example.org`, `*.example.org`, either with a port; no URL, no lone `*`, no `*.org`.
DOMAIN = re.compile(
    r"(?:(?P<below>\*\.)(?=[a-z0-9-]+\.))?(?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)*)(?::(?P<port>\d{1,5}))?", re.IGNORECASE
)
# Fields that change where media come from and what is kept of them, not what they are.
KEEPING = frozenset("fetch fetch_max_mb fetch_timeout_s fetch_cache cache_features cache_decoded cache_gb cache_folder".split())


class MediaSection(Section):
    """Limits on images, sounds and clips, each checked before anything is decoded; where they may be fetched from."""

    max_image_pixels: int = Field(100_000_000, gt=0, description="Images with more pixels than this are refused before decoding.")
    max_file_mb: float = Field(4096.0, gt=0, description="Larger files, in megabytes, are refused before they are read.")
    max_audio_s: float = Field(3600.0, gt=0, description="Longer sounds, in seconds, are refused before decoding.")
    max_video_s: float = Field(14400.0, gt=0, description="Longer clips, in seconds, are refused before decoding.")
    animated: Literal["refuse", "first_frame"] = Field(
        "refuse", description="Animations and many-page images: refused, or their first frame is taken as the image."
    )
    fetch: list[str] = Field(
        default_factory=list,
        description="Domains that media URLs may be fetched from: `images.example.org` is that host alone, `*.example.org` any below it; "
        "over https, public addresses only. No URL is fetched when empty.",
    )
    fetch_max_mb: float = Field(64.0, gt=0, description="Larger files, in megabytes, are not fetched.")
    fetch_timeout_s: float = Field(30.0, gt=0, description="A fetch that takes longer fails.")
    cache_features: Literal["off", "memory", "disk"] = Field(
        "off",
        description="Keep what a frozen tower and projector make of media, so that later epochs neither decode nor encode them: `memory` "
        "for this run, `disk` for later runs too. Off, with a note saying why, where something in them is random or trained.",
    )
    cache_decoded: Literal["off", "disk"] = Field(
        "off",
        description="Keep decoded media on disk, for later epochs and runs: images that a source's `max_pixels` shrinks, chosen frames of "
        "clips, sounds that are compressed or resampled. They are read back bit for bit.",
    )
    cache_gb: float = Field(
        8.0, gt=0, description="The most that cached features and decoded media may take, in gigabytes; what was used longest ago goes."
    )
    cache_folder: FilePath | None = Field(
        None, description="Folder of what is cached on disk; `features` in Foveate's cache folder when unset."
    )
    fetch_cache: FilePath | None = Field(
        None, description="Folder of fetched media, by the hash of their content; `media` in Foveate's cache folder when unset."
    )
