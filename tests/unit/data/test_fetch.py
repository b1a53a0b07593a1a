"""Media by URL: from allowed domains, over https, at public addresses, within limits, once; and nothing else on the network."""

from __future__ import annotations

import json
import pickle
import time
from dataclasses import replace
from pathlib import Path

import pytest

from foveate.config.media import MediaSection
from foveate.data.media import https, open_image
from foveate.data.media.fetch import Allowed, Fetcher, open_fetcher, parse_domain
from foveate.data.media.https import Web, is_public
from foveate.errors import DataError, FoveateError
from foveate.types import Image
from tests.unit.data.build import RULES, clip, corner_picture, encoded, noise_picture, sound
from tests.unit.data.web import HOST, site

PICTURE = encoded(corner_picture(), "PNG")


@pytest.fixture(scope="module")
def web_site(tmp_path_factory):
    with site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture
def here(web_site, monkeypatch):
    monkeypatch.setattr(https, "_PAUSE_S", 0.0)
    web_site.pages.clear()
    web_site.asked.clear()
    return web_site


def everything_is_public(address: str) -> bool:
    return True


def on_this_machine(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def web(here, *domains: str, **fields) -> Web:
    """As in a run, but for the address and the authority."""
    allowed = Allowed(domains=tuple(parse_domain(f"{domain}:{here.port}") for domain in domains or (HOST,)))
    fields = {"max_bytes": 1_000_000, "timeout_s": 10.0, "is_public": everything_is_public, **fields}
    return Web(is_allowed=allowed, resolve=on_this_machine, ca_certs=str(here.authority), **fields)


def fetcher(here, folder: Path, *domains: str, offline: bool = False, since: float = 0.0, **fields) -> Fetcher:
    return Fetcher(web=web(here, *domains, **fields), folder=folder, offline=offline, since=since)


def fails(fetch: Fetcher, url: str, kind: str = "image") -> DataError:
    with pytest.raises(DataError) as caught:
        fetch(url, kind)
    assert caught.value.fix and caught.value.where == url[:200]
    return caught.value


def test_a_picture_is_fetched_once_and_kept_by_its_content(here, tmp_path):
    fetch = fetcher(here, tmp_path / "cache")
    first, same = here.serve("/a.png?size=1", PICTURE), here.serve("/b.png", PICTURE)
    path = fetch(first, "image")
    assert open_image(Image(path=path), rules=RULES).size == (12, 8)
    assert fetch(first, "image") == fetch(f"{first}#top", "image") == fetch(same, "image") == path
    assert here.asked == [(f"{HOST}:{here.port}", "/a.png?size=1"), (f"{HOST}:{here.port}", "/b.png")]
    assert not list((tmp_path / "cache").glob(".part-*"))
    again = pickle.loads(pickle.dumps(fetcher(here, tmp_path / "cache", offline=True)))
    assert again(first, "image") == path
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_sounds_and_clips_too(here, tmp_path):
    fetch = fetcher(here, tmp_path / "cache")
    assert fetch(here.serve("/a.wav", sound()), "audio").read_bytes() == sound()
    film = clip(tmp_path / "a.mp4").read_bytes()
    assert fetch(here.serve("/a.mp4", film), "video").read_bytes() == film
    assert fetch(here.url("/a.mp4"), "audio").read_bytes() == film


def test_what_comes_must_be_a_medium_of_the_kind(here, tmp_path):
    fetch = fetcher(here, tmp_path)
    error = fails(fetch, here.serve("/a.png", b"<!DOCTYPE html><html>sign in", **{"Content-Type": "image/png"}))
    assert error.reason == "image_not_image" and "an HTML page" in error.problem
    assert fails(fetch, here.serve("/b", PICTURE), "audio").reason == "audio_not_audio"
    assert fails(fetch, here.serve("/c", b"")).reason == "image_not_image"
    assert not (tmp_path / "content").exists()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://media.example.org/a.png", "only https"), ("ftp://media.example.org/a.png", "only https"),
        ("s3://bucket/a.png", "only https"),
        ("https://elsewhere.org/a.png", "elsewhere.org is not among"), ("https://media.example.org.evil.org/a.png", "not among"),
        ("https://evilmedia.example.org/a.png", "not among"), ("https://a.media.example.org/x", "not among"),
        ("https://media.example.org:8443/a.png", "media.example.org:8443 is not among"),
        ("https://user:word@media.example.org/a.png", "password"), ("https://media.example.org@elsewhere.org/a.png", "user's name"),
        ("https:///a.png", "no plain URL"), ("https://m\u00e9dia.example.org/a.png", "no plain URL"),
        ("https://media.example.org/caf\u00e9.png", "no plain URL"), ("https://media..example.org/a.png", "no plain URL"),
        (f"https://{'a' * 64}.example.org/a.png", "no plain URL"),
        ("https://media.example.org/a b.png", "no plain URL"), ("https://media.example.org/a\r\nX: y", "no plain URL"),
        ("https://media.example.org:0x/a.png", "no URL"), ("https://[::1/a.png", "no URL"), ("https://127.0.0.1/a.png", "not among"),
    ],
)  # fmt: skip
def test_where_a_fetch_may_not_go(here, tmp_path, url, text):
    allowed = Allowed(domains=(parse_domain(HOST),))
    fetch = Fetcher(web=replace(web(here), is_allowed=allowed), folder=tmp_path, offline=False, since=0.0)
    error = fails(fetch, url)
    assert error.reason == "media_url" and text in error.problem
    assert here.asked == [] and not list(tmp_path.iterdir())


def test_domains():
    alone, below = parse_domain("Images.Example.org"), parse_domain("*.example.org:8443")
    assert alone.covers("images.EXAMPLE.org", 443) and not alone.covers("a.images.example.org", 443)
    assert below.covers("a.b.example.org", 8443) and not below.covers("example.org", 8443) and not below.covers("a.example.org", 443)
    for entry in ("https://example.org", "*", "*.org", "example.org/a", "", "a b.org", "*.*.org", "example.org:x", "ex\u00e4mple.org"):
        with pytest.raises(FoveateError, match="is no domain") as caught:
            open_fetcher(MediaSection(fetch=[entry], fetch_cache="/nowhere"), offline=False)
        assert caught.value.fix


def test_redirects_are_checked_like_the_first_url(here, tmp_path):
    fetch = fetcher(here, tmp_path, HOST, f"*.{HOST}")
    here.serve("/end.png", PICTURE)
    beside = here.url("/end.png", f"cdn.{HOST}")
    here.serve("/2", b"", 301, Location=beside)
    assert fetch(here.serve("/1", b"", 302, Location="/2"), "image").read_bytes() == PICTURE
    assert here.asked[-1] == (f"cdn.{HOST}:{here.port}", "/end.png")
    refused = [("https://elsewhere.org/a.png", "not among"), (f"http://{HOST}/end.png", "only https"), ("file:///etc/passwd", "only https")]
    for number, (target, text) in enumerate(refused):
        with pytest.raises(DataError, match=text) as caught:
            fetch(here.serve(f"/to/{number}", b"", 307, Location=target), "image")
        assert caught.value.reason == "media_url"
    error = fails(fetch, here.serve("/odd", b"", 302, Location="//[::1/a.png"))
    assert error.reason == "media_fetch" and "no URL" in error.problem
    error = fails(fetch, here.serve("/round", b"", 302, Location="/round"))
    assert error.reason == "media_fetch" and "more than 5 redirects" in error.problem


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "198.18.0.1", "192.0.2.1", "192.88.99.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1", "2001::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address):
    assert is_public(address)


def test_this_machine_is_refused_whatever_its_name(here, tmp_path):
    url = here.serve("/a.png", PICTURE)
    fetch = fetcher(here, tmp_path, is_public=is_public)
    error = fails(fetch, url)
    assert error.reason == "media_url" and "127.0.0.1, which is not public" in error.problem and here.asked == []
    resolved = Web(is_allowed=lambda host, port: True, max_bytes=1, timeout_s=5)
    with pytest.raises(DataError, match="not public"):
        resolved._addresses(resolved.target("https://localhost/a.png"))


def test_one_private_address_among_public_ones_is_enough_to_refuse(here):
    mixed = replace(web(here), resolve=lambda host, port: ["93.184.216.34", "10.0.0.1"], is_public=is_public)
    with pytest.raises(DataError, match="10.0.0.1, which is not public"):
        mixed._addresses(mixed.target(here.url("/a.png")))


def test_the_address_that_was_checked_is_the_one_connected_to(here, tmp_path):
    answers = iter(["127.0.0.1"])  # a second look-up would fail
    fetch = fetcher(here, tmp_path)
    fetch._web = replace(fetch._web, resolve=lambda host, port: [next(answers)])
    assert fetch(here.serve("/a.png", PICTURE), "image").exists()


def test_the_certificate_must_be_the_hosts(here, tmp_path):
    fetch = fetcher(here, tmp_path, "elsewhere.org")
    here.serve("/a.png", PICTURE)
    error = fails(fetch, here.url("/a.png", "elsewhere.org"))
    assert error.reason == "media_fetch" and "elsewhere.org" in error.problem and here.asked == []
    stranger = Fetcher(web=replace(web(here), ca_certs=None), folder=tmp_path, offline=False, since=0.0)
    assert "certificate" in fails(stranger, here.url("/a.png")).problem


def test_the_size_is_counted_whatever_the_server_says(here, tmp_path):
    noise = encoded(noise_picture(200, 200), "PNG")
    fetch = fetcher(here, tmp_path, max_bytes=50_000)

    def endless(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(1000):
            handler.wfile.write(noise)

    here.pages["/endless"] = endless
    for url in (here.serve("/honest", noise), here.url("/endless")):
        error = fails(fetch, url)
        assert error.reason == "media_fetch" and "more than 0.05 MB" in error.problem and "fetch_max_mb" in error.fix
    short = here.serve("/short", PICTURE, **{"Content-Length": str(len(PICTURE) + 10)})
    assert fails(fetch, short).reason == "media_fetch"


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_a_page_that_drips_is_cut_off(here, tmp_path, before):
    url = here.drip("/slow", 0.02, before)
    error = fails(fetcher(here, tmp_path, timeout_s=0.3), url)
    assert error.reason == "media_fetch" and "takes longer than 0.3 s" in error.problem


def test_passing_troubles_are_met_twice_more(here, tmp_path):
    statuses = iter([503, 429, 200, 500, 500, 500, 500])

    def moody(handler):
        status = next(statuses)
        handler.wfile.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(PICTURE)}\r\n\r\n".encode() + PICTURE)

    here.pages["/a"] = here.pages["/b"] = moody
    fetch = fetcher(here, tmp_path)
    assert fetch(here.url("/a"), "image").read_bytes() == PICTURE
    assert "the server says 500" in fails(fetch, here.url("/b")).problem and len(here.asked) == 6
    assert "the server says 404" in fails(fetch, here.url("/none")).problem and len(here.asked) == 7


def test_a_failure_is_final_for_the_run_and_tried_again_by_the_next(here, tmp_path):
    started = time.time()
    fetch = fetcher(here, tmp_path, since=started)
    url = here.url("/late.png")
    first = fails(fetch, url)
    here.serve("/late.png", PICTURE)
    for process in (fetch, pickle.loads(pickle.dumps(fetch)), fetcher(here, tmp_path, since=started)):
        again = fails(process, url)
        assert (again.problem, again.reason, again.fix) == (first.problem, first.reason, first.fix)
    assert len(here.asked) == 1
    assert fetcher(here, tmp_path, since=time.time())(url, "image").exists()
    assert fetch(url, "image").exists()


def test_offline_takes_what_is_there(here, tmp_path):
    url = here.serve("/a.png", PICTURE)
    error = fails(fetcher(here, tmp_path, offline=True), url)
    assert error.reason == "media_fetch" and "offline" in error.problem and here.asked == []
    path = fetcher(here, tmp_path)(url, "image")
    assert fetcher(here, tmp_path, offline=True)(url, "image") == path
    path.unlink()
    assert fails(fetcher(here, tmp_path, offline=True), url).reason == "media_fetch"
    assert fetcher(here, tmp_path)(url, "image").read_bytes() == PICTURE


def test_a_damaged_cache_is_fetched_again(here, tmp_path):
    url = here.serve("/a.png", PICTURE)
    path = fetcher(here, tmp_path)(url, "image")
    path.write_bytes(PICTURE[:10])
    assert fetcher(here, tmp_path)(url, "image").read_bytes() == PICTURE
    (note,) = [file for file in (tmp_path / "urls").rglob("*") if file.is_file()]
    assert json.loads(note.read_text())["url"] == url
    note.write_text("{")
    assert fetcher(here, tmp_path)(url, "image").read_bytes() == PICTURE


def test_a_folder_that_cannot_be_written_stops_the_run(here, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FoveateError, match="can't be kept") as caught:
        fetcher(here, tmp_path / "file")(here.serve("/a.png", PICTURE), "image")
    assert not isinstance(caught.value, DataError) and "fetch_cache" in caught.value.fix


def test_the_cache_is_where_the_recipe_or_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    assert open_fetcher(MediaSection(), offline=False) is None
    assert open_fetcher(MediaSection(fetch=["example.org"]), offline=False)._folder == tmp_path / "cache" / "media"
    assert open_fetcher(MediaSection(fetch=["example.org"], fetch_cache=str(tmp_path / "own")), offline=False)._folder == tmp_path / "own"
