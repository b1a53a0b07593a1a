"""The types a record passes through: Row -> Conversation -> Example -> Batch. Each arrow changes the type once.

Torch is imported for annotations only, so that `config`, `report` and the command line stay free of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Role = Literal["system", "user", "assistant", "tool"]
MediaKind = Literal["image", "audio", "video"]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a record came from: names it in every error, ledger line and report."""

    dataset: str = ""  # the source's name in the recipe
    file: str = ""  # the file as the user knows it
    row: int = -1  # 0-based record number within the source

    def __str__(self) -> str:
        # Not `file:row`: everyone would read that as a line of the file, which it is not.
        return f"{self.file or self.dataset} row {self.row}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A piece of text, exactly as it is to be rendered."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A lazy reference to bytes: exactly one of `path`, `data` and `url` is set. Only `data/media` opens it.

    A `url` is what the data says; the mixture puts the fetched file's path in its place, or refuses the record.
    """

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    url: str | None = None

    @property
    def name(self) -> str:
        """What errors call it: the path, the URL, or the number of embedded bytes."""
        if self.path is not None:
            return str(self.path)
        return self.url if self.url is not None else f"<{len(self.data or b'')} embedded bytes>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Media):
    """A still image; `max_pixels` (height x width) is the recipe's explicit shrinking rule."""

    max_pixels: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio(Media):
    """A sound; decoded to mono float32 at the rate that the processor wants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video(Media):
    """A clip: a file, a folder of frames (`path`), or its frames themselves (`frames`; then path, data and url are None).

    `num_frames` frames are taken evenly, or `fps` a second; the processor's own default when both are None. Only what lies
    between `start_s` and `end_s` (seconds) is looked at. A list or folder of frames has `frames_fps` frames a second.
    """

    num_frames: int | None = None
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    frames: tuple[Image, ...] = ()
    frames_fps: float | None = None


Part = Text | Image | Audio | Video


def kind_of(medium: Media) -> MediaKind:
    """`image`, `audio` or `video`."""
    return "image" if isinstance(medium, Image) else "audio" if isinstance(medium, Audio) else "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A function that an assistant turn calls. `arguments` is the text of a JSON object, as it was written."""

    name: str
    arguments: str = "{}"
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn; `train` says whether an assistant turn is trained on (other roles never are), `weight` how much each token counts.

    `reasoning` is what the assistant thought before its answer, where the record keeps it apart. `tool_calls` are an assistant's;
    `name` and `tool_call_id` say which call a tool's turn answers.
    """

    role: Role
    parts: tuple[Part, ...]
    train: bool = True
    weight: float = 1.0
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The text parts joined, media left out."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def trained(self) -> bool:
        """True for the turns whose tokens get labels."""
        return self.role == "assistant" and self.train and self.weight > 0

    @property
    def says(self) -> bool:
        """Whether the turn has anything for others to read: text that is not blank, or a call of a tool."""
        return bool(self.tool_calls) or bool(self.text.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A record as every later stage sees it; `answers` holds all accepted answers to the last turn (for metrics).

    `tools` are the functions that the assistant may call, the text of one JSON object each.
    """

    messages: tuple[Message, ...]
    origin: Origin = Origin()
    answers: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()

    @property
    def media(self) -> tuple[Image | Audio | Video, ...]:
        """Every image, sound and clip, in the order of reading."""
        return tuple(part for message in self.messages for part in message.parts if not isinstance(part, Text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """What a conversation costs, known from headers alone, exactly."""

    tokens: int  # T, media placeholders expanded
    patches: int = 0  # what the towers compute: patches of images and clips as they see them, frames of sounds
    kinds: frozenset[str] = frozenset()  # the media kinds present, see MediaKind
    lead: str = ""  # a hash of the tokens up to the end of the last medium; empty without media, or where it is not known
    lead_tokens: int = 0  # how many those are, placeholders expanded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unit:
    """A conversation's media by themselves: what a frozen tower takes, or what it makes of them where that is known (media.cache_features).

    A batch of units is run one by one, so what comes of each does not depend on its neighbours.
    """

    key: str | None = None  # under which the features are kept; None: they are not
    media: dict[str, Tensor] = field(default_factory=dict)  # as the processor gives them for this conversation; empty with features
    features: dict[str, Tensor] | None = None  # see model/features.py


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One encoded conversation. `labels` are unshifted: labels[t] == input_ids[t] where trained, else -100."""

    input_ids: Tensor  # [T] int64
    labels: Tensor  # [T] int64
    weights: Tensor | None = None  # [T] float32, 0 where not trained; None where every trained token counts 1
    position_ids: Tensor | None = None  # [axes, T] for mRoPE families (3 axes, HunYuan-VL 4), else None: 0..T-1
    token_inputs: dict[str, Tensor] = field(default_factory=dict)  # name -> [T, ...], what goes along the tokens: mm_token_type_ids
    media: dict[str, Tensor] = field(default_factory=dict)  # name -> as the processor gives it; `Family` says how those of several join
    kinds: frozenset[str] = frozenset()
    origin: Origin = Origin()
    unit: Unit | None = None  # its media apart; `media` then holds small stand-ins in their place


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One micro-batch for one rank. Packed: B == 1 and `segments` holds the samples' lengths, summing to T.

    Samples that begin alike share that beginning: a segment (prefix, branch, ...) is one prefix and what each sample goes on with.
    """

    inputs: dict[str, Tensor]  # keyword arguments of the model's forward
    labels: Tensor  # [B, T], unshifted
    num_targets: int  # supervised positions, dummies excluded
    num_tokens: int  # real tokens, padding and dummies excluded
    segments: tuple[int | tuple[int, ...], ...] | None = None
    origins: tuple[Origin, ...] = ()
    weights: Tensor | None = None  # [B, T] float32, 0 where not trained; None where every trained token counts 1
    units: tuple[Unit, ...] = ()  # the conversations' media, where features are computed one by one, in the order of the samples

    @property
    def weight(self) -> float:
        """What the loss sum is divided by, summed over all batches of a step: `num_targets` unless tokens are weighted."""
        return float(self.num_targets) if self.weights is None else float(self.weights.double().sum())


Adapter = Callable[[Row], Conversation]
Encode = Callable[[Conversation], Example]
