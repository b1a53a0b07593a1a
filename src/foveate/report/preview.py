"""preview.html: each sample's pixels and tokens as the model gets them, coloured by whether they are trained on."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foveate.events import Quarantined
from foveate.report.render import render
from foveate.report.run_files import write_whole

_SMALL = 160  # px: narrower pictures are enlarged pixel by pixel, not smoothed
_MOST_PIECES = 3000  # shown of one sample; the page says how many more there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture as the model gets it; `caption` says what was done to it. PNG bytes."""

    png: bytes = field(repr=False)
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One token, or several that only together make a character or a medium; `count` says how many. `weight` is a trained one's."""

    text: str
    trained: bool = False
    kind: str = "text"  # text | special | media
    count: int = 1
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewSample:
    """One encoded record. The pieces' counts sum to `tokens`, those of the trained ones to `targets`."""

    origin: str
    split: str  # train | eval
    pieces: tuple[Piece, ...]
    tokens: int
    targets: int
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A sample with what the template needs worked out."""

    sample: PreviewSample
    pieces: tuple[Piece, ...]
    rest: int
    pictures: tuple[tuple[str, str, bool], ...]  # (data URI, caption, so small that its pixels should be seen)
    media_tokens: int


def write_preview(
    samples: Sequence[PreviewSample], path: Path, *, title: str = "", notes: Sequence[str] = (), rejected: Sequence[Quarantined] = ()
) -> Path:
    """Writes one self-contained page and returns its path. `rejected` are the records that were read but can't be used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = [_shown(sample) for sample in samples]
    splits = Counter(sample.split for sample in samples)
    filters = [("all", "All", len(samples)), *((split, split.capitalize(), rows) for split, rows in splits.items() if len(splits) > 1)]
    tokens, targets = sum(sample.tokens for sample in samples), sum(sample.targets for sample in samples)
    html = render(
        "preview.html.j2",
        title=title,
        samples=shown,
        filters=filters,
        notes=notes,
        rejected=rejected,
        tokens=tokens,
        targets=targets,
        share=targets / tokens if tokens else 0.0,
        media_tokens=sum(item.media_tokens for item in shown),
        weighted=any(piece.trained and piece.weight != 1 for item in shown for piece in item.pieces),
    )
    return write_whole(path, html)


def _shown(sample: PreviewSample) -> _Shown:
    pictures = tuple(
        (f"data:image/png;base64,{base64.b64encode(picture.png).decode()}", picture.caption, _width(picture.png) < _SMALL)
        for picture in sample.pictures
    )
    return _Shown(
        sample=sample,
        pieces=sample.pieces[:_MOST_PIECES],
        rest=sum(piece.count for piece in sample.pieces[_MOST_PIECES:]),
        pictures=pictures,
        media_tokens=sum(piece.count for piece in sample.pieces if piece.kind == "media"),
    )


def _width(png: bytes) -> int:
    return int.from_bytes(png[16:20], "big")  # the first field of the header chunk, at a fixed place in every PNG
