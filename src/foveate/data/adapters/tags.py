"""Where the media of a row's own columns go: to `<image>` tags in the text and to content parts without a medium, in order."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from foveate.errors import DataError
from foveate.types import MediaKind, Part, Role, Text

KIND_NAMES: tuple[MediaKind, ...] = ("image", "audio", "video")
# `<image>`; Phi's numbered `<|image_1|>`, and the two names that its tokenizer has for it, which NeMo Automodel's recipes write.
_TAG = re.compile(r"<(image|audio|video)>|<\|(image|audio)_(\d{1,9})\|>|<\|endoftext1([01])\|>")


class MediaPool:
    """The media of one row's columns, handed out in order. `finish` raises unless there is one tag or empty part for each.

    A tag is only text where it can be no placeholder: in an assistant's turn, and where the row has no medium of its kind. But if the
    row should have one (`expected`), a tag that opens a line is a placeholder whose medium is missing, and counts as one.
    """

    def __init__(self, media: Mapping[MediaKind, Sequence[Part]], *, expected: Collection[MediaKind] | None = None) -> None:
        """`expected`: kinds that the source has a column for; those in `media` when None."""
        self._media = {kind: list(media.get(kind, ())) for kind in KIND_NAMES}
        self._expected = frozenset(media if expected is None else expected)
        self._used = dict.fromkeys(KIND_NAMES, 0)
        self._answered = dict.fromkeys(KIND_NAMES, 0)  # tags in assistant turns

    @property
    def items(self) -> list[Part]:
        """All media, kind by kind."""
        return [item for items in self._media.values() for item in items]

    @property
    def untouched(self) -> bool:
        """Whether no tag and no empty part has asked for a medium so far."""
        return not any(self._used.values()) and not any(self._answered.values())

    def take(self, kind: MediaKind) -> Part | None:
        """The next medium of a kind; None when there is none left."""
        number = self._used[kind]
        self._used[kind] += 1
        return self._media[kind][number] if number < len(self._media[kind]) else None

    def split(self, text: str, role: Role) -> tuple[Part, ...]:
        """The text with media in place of its tags. Line breaks around a tag belong to it: chat templates bring their own."""
        parts: list[Part] = []
        at = 0
        for match in _TAG.finditer(text):
            kind = _kind(match)
            if role == "assistant":
                self._answered[kind] += bool(self._media[kind])
                continue
            if not self._media[kind] and not (kind in self._expected and text[: match.start()].rstrip(" \t")[-1:] in ("", "\n")):
                continue
            self._check_number(match, kind)
            medium = self.take(kind)
            _add_text(parts, text[at : match.start()].rstrip("\n"))
            parts += [medium] if medium is not None else []  # too many tags: `finish` says so, with their number in the whole record
            at = match.end()
            while text[at : at + 1] == "\n":
                at += 1
        _add_text(parts, text[at:])
        return tuple(parts)

    def finish(self) -> None:
        """DataError `placeholder_mismatch`, or `media_in_answer` when the assistant's turns hold the tags that are missing."""
        for kind in KIND_NAMES:
            there, used, answered = len(self._media[kind]), self._used[kind], self._answered[kind]
            if used == there:
                continue
            if answered and used + answered == there:
                raise DataError(
                    f"<{kind}> in the assistant's turn stands for a medium", reason="media_in_answer", fix="only user turns may show media"
                )
            raise DataError(
                f"{there} {plural(kind)}, but {used} <{kind}> tags" + (f" and {answered} in answers" if answered else ""),
                reason="placeholder_mismatch",
                fix=f"write one <{kind}> for each {kind}; a tag that is meant as text must not open a line",
            )  # fmt: skip

    def _check_number(self, match: re.Match[str], kind: MediaKind) -> None:
        if match[3] is not None and int(match[3]) != self._used[kind] + 1:
            raise DataError(
                f"{match[0]} where the {kind} {self._used[kind] + 1} belongs", reason="placeholder_mismatch",
                fix="number the tags from 1, in the order of reading",
            )  # fmt: skip


def count_tags(text: str) -> int:
    """How many tags of any kind and spelling the text has."""
    return sum(1 for _ in _TAG.finditer(text))


def plural(kind: str) -> str:
    """`images`, `sounds`, `videos`: for messages."""
    return {"audio": "sounds"}.get(kind, f"{kind}s")


def _kind(match: re.Match[str]) -> MediaKind:
    name = match[1] or match[2] or ("image" if match[4] == "0" else "audio")
    return next(kind for kind in KIND_NAMES if kind == name)


def _add_text(parts: list[Part], text: str) -> None:
    if text:
        parts.append(Text(text=text))
