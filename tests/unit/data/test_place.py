"""Paths stay inside `media_root`, whatever they are written as; URLs are refused unless the recipe allows their domain."""

from __future__ import annotations

import os

import pytest

from foveate.config.media import MediaSection
from foveate.data.mixture import Mixture, build_mixture
from foveate.data.scan import scan
from foveate.errors import DataError
from foveate.types import Image
from tests.unit.data.build import RULES, corner_picture, encoded, jsonl, section
from tests.unit.data.test_fetch import PICTURE, fetcher, here, web_site  # noqa: F401 - fixtures


@pytest.fixture
def folders(tmp_path):
    """`media` with a.png, `outside` with b.png."""
    for folder, name in (("media/deep", "a.png"), ("outside", "b.png")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_bytes(encoded(corner_picture(), "PNG"))
    return tmp_path


def verdict(folders, image, rules: MediaSection = RULES, **fields):
    record = {"question": "?", "answer": "x"} | ({"image": image} if isinstance(image, str) else image)
    mixture = build_mixture([section(path=jsonl(folders / "data.jsonl", [record]), **fields)], rules=rules)
    (only,) = scan(mixture, level="headers", rules=rules)
    return only


@pytest.mark.parametrize(
    "spelling", ["deep/a.png", "deep/../deep/a.png", "{}/media/deep/a.png", "file://{}/media/deep/a.png", "link.png", "way/a.png"]
)
def test_paths_inside_are_fine(folders, spelling):
    (folders / "media" / "link.png").symlink_to(folders / "media" / "deep" / "a.png")
    (folders / "media" / "way").symlink_to("deep")
    assert verdict(folders, spelling.format(folders), media_root=folders / "media").error is None


@pytest.mark.parametrize(
    "spelling",
    [
        "../outside/b.png", "deep/../../outside/b.png", "{}/outside/b.png", "file://{}/outside/b.png", "file://{}/media/%2e%2e/outside/b.png",
        "link.png", "chain.png", "way/b.png", "way/../b.png", "{}/media2/b.png", "..", "../media2/b.png", "none/../../outside/b.png",
    ],
)  # fmt: skip
def test_paths_that_lead_outside_are_refused(folders, spelling):
    root = folders / "media"
    (root / "link.png").symlink_to("../outside/b.png")
    (root / "chain.png").symlink_to("link.png")
    (root / "way").symlink_to("../outside")
    (folders / "media2").mkdir()
    (folders / "media2" / "b.png").write_bytes(PICTURE)
    error = verdict(folders, spelling.format(folders), media_root=root).error
    assert error.reason == "media_outside" and str(root) in error.problem and "media_root" in error.fix
    if spelling == "chain.png":
        assert f"leads to {folders / 'outside' / 'b.png'}" in error.problem


def test_a_missing_file_inside_is_only_missing(folders):
    assert verdict(folders, "deep/none.png", media_root=folders / "media").error.reason == "image_missing"


def test_the_root_may_be_a_link_itself(folders):
    (folders / "alias").symlink_to("media")
    assert verdict(folders, "deep/a.png", media_root=folders / "alias").error is None
    assert verdict(folders, "../outside/b.png", media_root=folders / "alias").error.reason == "media_outside"


def test_without_a_root_paths_may_lead_anywhere(folders):
    assert verdict(folders, "outside/b.png").error is None
    assert verdict(folders, f"{folders}/outside/b.png").error is None


def test_frames_are_confined_too(folders):
    frames = folders / "media" / "frames"
    frames.mkdir()
    for number in range(3):
        (frames / f"{number}.png").write_bytes(PICTURE)
    root = {"media_root": folders / "media"}
    assert verdict(folders, {"video": "frames"}, **root).error is None
    content = [{"type": "video", "video": ["frames/0.png", "../outside/b.png"]}, {"type": "text", "text": "?"}]
    talk = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "x"}]}
    path = jsonl(folders / "talk.jsonl", [talk])
    (only,) = scan(build_mixture([section(path=path, **root)]), level="headers", rules=RULES)
    assert only.error.reason == "media_outside"
    os.symlink(folders / "outside" / "b.png", frames / "3.png")
    assert verdict(folders, {"video": "frames"}, **root).error.reason == "media_outside"
    assert verdict(folders, {"video": "x" * 300}, **root).error.reason == "video_unreadable"


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("https://images.example.org/a.png", "fetch: [images.example.org]"),
        ("https://images.example.org:8443/a.png", "[images.example.org:8443]"),
        ("http://images.example.org/a.png", "download"), ("s3://bucket/a.png", "download"), ("https://[bad/a.png", "download"),
    ],
)  # fmt: skip
def test_urls_are_refused_by_default(folders, url, fix):
    error = verdict(folders, url).error
    assert error.reason == "media_url" and fix in error.fix and url in error.where


def test_urls_are_fetched_where_the_recipe_allows_it(folders, here):  # noqa: F811
    rows = [{"image": url, "question": "?", "answer": "x"} for url in (here.serve("/a.png", PICTURE), here.url("/none.png"))]
    base = build_mixture([section(path=jsonl(folders / "data.jsonl", rows), media_root=folders / "media", max_pixels=50)])
    mixture = Mixture(base.sources, base.adapters, base.sections, base.formats, rules=RULES, fetcher=fetcher(here, folders / "cache"))
    good, bad = scan(mixture, level="decode", rules=RULES)
    (image,) = good.conversation.media
    assert good.error is None and image == Image(path=image.path, max_pixels=50) and image.path.is_relative_to(folders / "cache")
    assert bad.error.reason == "media_fetch" and "404" in bad.error.problem and str(bad.origin) in bad.error.where
    with pytest.raises(DataError, match="404"):
        mixture.conversation(1)
