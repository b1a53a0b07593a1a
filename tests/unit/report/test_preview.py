"""The preview page: tokens in order, trained ones marked, hostile text inert."""

from __future__ import annotations

import re

from foveate.report.preview import Piece, PreviewSample, write_preview


def sample(*pieces: Piece, origin: str = "data.jsonl:0") -> PreviewSample:
    return PreviewSample(
        origin=origin,
        split="train",
        pieces=pieces,
        tokens=sum(piece.count for piece in pieces),
        targets=sum(piece.count for piece in pieces if piece.trained),
    )


def spans(html: str) -> list[tuple[str, str]]:
    body = re.search(r'<div class="tokens">(.*?)</div>', html, re.S).group(1)
    return re.findall(r'<span class="([^"]*)">(.*?)</span>', body, re.S)


def test_pieces_are_shown_in_order(tmp_path):
    pieces = (
        Piece(text="<s>", kind="special"),
        Piece(text="<image>", kind="media", count=64),
        Piece(text=" a\n"),
        Piece(text="b", trained=True),
    )
    html = write_preview([sample(*pieces)], tmp_path / "out" / "preview.html").read_text(encoding="utf-8")
    assert spans(html) == [("t special", "&lt;s&gt;"), ("chip accent", "&lt;image&gt; ×64"), ("t", " a↵\n"), ("t on", "b")]
    assert "<b>67</b> tokens · <b>1</b> trained · <b>64</b> media" in html


def test_text_of_the_data_is_inert(tmp_path):
    html = write_preview([sample(Piece(text="<script>alert(1)</script>"))], tmp_path / "p.html", title="<b>").read_text(encoding="utf-8")
    assert html.count("<script>") == 2 and "&lt;script&gt;alert(1)" in html and "<b> ·" not in html


def test_endless_samples_are_cut_and_say_so(tmp_path):
    html = write_preview([sample(*[Piece(text="x") for _ in range(3500)])], tmp_path / "p.html").read_text(encoding="utf-8")
    assert len(spans(html)) == 3001 and "… 500 more tokens" in html and "<b>3,500</b> tokens" in html


def test_weights_are_seen_where_they_begin(tmp_path):
    pieces = [
        Piece(text="q"),
        Piece(text="a", trained=True, weight=0.30000001192092896),
        Piece(text="b", trained=True, weight=0.30000001192092896),
        Piece(text="c", trained=True),
        Piece(text="q"),
        Piece(text="d", trained=True),
    ]
    html = write_preview([sample(*pieces)], tmp_path / "p.html").read_text(encoding="utf-8")
    body = re.search(r'<div class="tokens">(.*?)</div>', html, re.S).group(1)
    assert re.sub(r"<[^>]*>", "", body) == "q×0.3ab×1cqd" and "opacity" not in body
    assert "weight in the loss of the trained tokens that follow" in html
    plain = write_preview([sample(Piece(text="d", trained=True))], tmp_path / "q.html").read_text(encoding="utf-8")
    assert "weight in the loss" not in plain
