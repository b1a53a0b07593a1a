"""Media that the data names by URL: fetched once from the domains that the recipe allows, then kept by the hash of their content.

The folder holds `content/ab/<sha-256>` and, for each URL, `urls/ab/<sha-256 of it>` with what came of it. Files are written aside and
renamed, so processes may share the folder. A failure is final for the run that met it (all its processes and epochs), so that a record
has the same verdict every time; the next run tries again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from foveate.config.media import DOMAIN, MediaSection
from foveate.data.files import cache_folder
from foveate.data.media.blob import blob_error
from foveate.data.media.https import PORT, Web
from foveate.data.media.sniff import CLIPS, IMAGES, SOUNDS, sniff
from foveate.errors import DataError, FoveateError
from foveate.types import Media, MediaKind

_FORMATS: dict[MediaKind, frozenset[str]] = {"image": IMAGES, "audio": SOUNDS | CLIPS, "video": CLIPS | {"m4a"}}
_HEAD_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """An entry of `media.fetch`: `images.example.org` is that host alone, `*.example.org` any below it; the port is 443 unless given."""

    host: str
    below: bool
    port: int

    def covers(self, host: str, port: int) -> bool:
        """Whether a URL's host and port are meant."""
        host = host.lower()
        return port == self.port and (host.endswith(f".{self.host}") if self.below else host == self.host)


def parse_domain(entry: str) -> Domain:
    """FoveateError for what is no domain, such as a whole URL or a lone `*`."""
    match = DOMAIN.fullmatch(entry)
    if match is None:
        raise FoveateError(
            f"{entry!r} is no domain", where="media.fetch", fix="write hosts, as images.example.org, or *.example.org for all below it"
        )
    return Domain(host=match["host"].lower(), below=bool(match["below"]), port=int(match["port"] or PORT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What came of a URL, as it is kept: the content's hash and size, or the error and when it was met."""

    url: str
    sha256: str = ""
    size: int = 0
    problem: str = ""
    reason: str = ""
    fix: str = ""
    time_s: float = 0.0


class Fetcher:
    """URL -> path of the fetched file. Picklable; `open_fetcher` makes one from a recipe."""

    def __init__(self, *, web: Web, folder: Path, offline: bool, since: float) -> None:
        """`since`: when the run began, in seconds of the clock; failures noted after that are final."""
        self._web, self._folder, self._offline, self._since = web, folder, offline, since

    def __call__(self, url: str, kind: MediaKind) -> Path:
        """DataError `media_url` for one that may not be fetched, `media_fetch` when it fails, `<kind>_not_<kind>` for other content."""
        url = url.partition("#")[0]
        self._web.target(url)
        known = self._read(url)
        if known.sha256:
            path = self._content(known.sha256)
            if _size(path) == known.size:
                return path
        if known.reason and known.time_s >= self._since:
            raise DataError(known.problem, reason=known.reason, where=url[:200], fix=known.fix)
        if self._offline:
            raise DataError(
                "it has not been fetched, and this run is offline", reason="media_fetch", where=url[:200],
                fix="run `foveate check` once where there is a network, or set `model.offline: false`",
            )  # fmt: skip
        try:
            found = self._fetch(url, kind)
        except DataError as error:
            self._write(Note(url=url, problem=error.problem, reason=error.reason, fix=error.fix, time_s=time.time()))
            raise
        self._write(found)
        return self._content(found.sha256)

    def _fetch(self, url: str, kind: MediaKind) -> Note:
        with self._aside() as path:
            with path.open("w+b") as file:
                digest, size = self._web.download(url, file)
                file.seek(0)
                head = file.read(_HEAD_BYTES)
            found = sniff(head)
            if found not in _FORMATS[kind]:
                raise blob_error(Media(url=url), kind, head, found)
            content = self._content(digest)
            content.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.replace(path, content)
        return Note(url=url, sha256=digest, size=size)

    @contextmanager
    def _aside(self):
        """A new file in the folder, gone afterwards unless it was renamed. FoveateError when the folder can't be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self._folder, prefix=".part-")
            os.close(handle)
            try:
                yield Path(name)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:  # no record's fault
            raise FoveateError(
                f"fetched media can't be kept: {error.strerror or error}", where=str(self._folder), fix="set `media.fetch_cache`"
            ) from None

    def _place(self, url: str) -> Path:
        key = hashlib.sha256(url.encode()).hexdigest()
        return self._folder / "urls" / key[:2] / key

    def _content(self, digest: str) -> Path:
        return self._folder / "content" / digest[:2] / digest

    def _read(self, url: str) -> Note:
        """An empty note where there is none, or none that can be read: the URL is then fetched again."""
        try:
            return Note(**json.loads(self._place(url).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return Note(url=url)

    def _write(self, note: Note) -> None:
        place = self._place(note.url)
        with self._aside() as path:
            path.write_text(json.dumps(asdict(note)), "utf-8")
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.replace(path, place)


def open_fetcher(rules: MediaSection, *, offline: bool) -> Fetcher | None:
    """None when the recipe allows no domain. FoveateError for an entry that is no domain, or a cache folder that can't be made."""
    if not rules.fetch:
        return None
    allowed = Allowed(domains=tuple(parse_domain(entry) for entry in rules.fetch))
    folder = Path(rules.fetch_cache) if rules.fetch_cache is not None else cache_folder("media")
    web = Web(is_allowed=allowed, max_bytes=int(rules.fetch_max_mb * 1_000_000), timeout_s=rules.fetch_timeout_s)
    return Fetcher(web=web, folder=folder, offline=offline, since=time.time())


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The allowed domains, as a question: (host, port) -> bool."""

    domains: Sequence[Domain]

    def __call__(self, host: str, port: int) -> bool:
        """Whether one of them covers it."""
        return any(domain.covers(host, port) for domain in self.domains)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
