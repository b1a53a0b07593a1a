"""Where media come from, settled before they are opened: paths stay inside the source's `media_root`, URLs become fetched files."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from foveate.data.media.fetch import Fetcher
from foveate.data.media.https import PORT
from foveate.errors import DataError
from foveate.types import Conversation, Media, Part, Text, Video, kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Settler:
    """The rules of one source. `root`: its `media_root`, symlinks followed; None when paths may lead anywhere."""

    root: str | None = None
    fetcher: Fetcher | None = None

    def conversation(self, conversation: Conversation) -> Conversation:
        """All media settled. DataError `media_outside`, `media_url`, `media_fetch` ..."""
        if self.root is None and all(_is_settled(medium) for medium in conversation.media):
            return conversation
        messages = tuple(replace(message, parts=tuple(map(self.part, message.parts))) for message in conversation.messages)
        return replace(conversation, messages=messages)

    def part(self, part: Part) -> Part:
        """The same part, with the fetched file in a URL's place."""
        if isinstance(part, Text):
            return part
        if isinstance(part, Video) and part.frames:
            return replace(part, frames=tuple(map(self.part, part.frames)))
        if part.url is not None:
            if self.fetcher is None:
                raise _not_fetched(part.url)
            return replace(part, path=self.fetcher(part.url, kind_of(part)), url=None)
        if part.path is not None and self.root is not None:
            self._check_inside(part.path)
            if isinstance(part, Video) and os.path.isdir(part.path):
                self._check_folder(part)
        return part

    def _check_inside(self, path: Path) -> None:
        target = _resolved(str(path))
        if target == self.root or target.startswith(self.root.rstrip(os.sep) + os.sep):
            return
        leads = f" leads to {target}, which" if target != str(path) else ""
        raise DataError(
            f"the path{leads} is outside the source's media_root, {self.root}", reason="media_outside", where=str(path),
            fix="move the file into it, or set `media_root:` to a folder that holds all the media",
        )  # fmt: skip

    def _check_folder(self, video: Video) -> None:
        """A link in a folder of frames may lead outside, too."""
        try:
            with os.scandir(video.path) as entries:
                links = [entry.path for entry in entries if entry.is_symlink()]
        except OSError:  # said when the frames are looked for
            return
        for link in links:
            self._check_inside(Path(link))


def open_settler(media_root: str | None, fetcher: Fetcher | None) -> Settler:
    """For one source; `media_root` as in the recipe."""
    return Settler(root=None if media_root is None else os.path.realpath(media_root), fetcher=fetcher)


def _is_settled(medium: Media) -> bool:
    return medium.url is None and not (isinstance(medium, Video) and any(frame.url is not None for frame in medium.frames))


def _resolved(path: str) -> str:
    """The path with links and `..` followed. Folders are remembered: media lie in few of them."""
    folder, name = os.path.split(path)
    if name in ("", ".", ".."):
        return os.path.realpath(path)
    whole = os.path.join(_real_folder(folder), name)
    return os.path.realpath(whole) if os.path.islink(whole) else whole


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _not_fetched(url: str) -> DataError:
    scheme = url.partition("://")[0]
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host += f":{parts.port}" if parts.port not in (None, PORT) else ""
    except ValueError:
        host = ""
    allow = f"; or let runs fetch it: `media: {{fetch: [{host}]}}`" if scheme.lower() == "https" and host else ""
    return DataError(
        "it is a URL, and media are not fetched unless the recipe allows it", reason="media_url", where=url[:200],
        fix=f"download it first and give the path{allow}",
    )  # fmt: skip

