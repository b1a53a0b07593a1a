"""One family under test: a tiny model of its real architecture, its processor, and small conversations about every kind of medium."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from foveate.batching.collate import collate_packed, collate_padded
from foveate.batching.pack import together
from foveate.encode.encoder import Encoder
from foveate.errors import DataError
from foveate.model import tiny
from foveate.model.attention import use_segments
from foveate.model.families import Family, family_of, keeps_logits, positions_of
from foveate.model.loss import loss_sum
from foveate.model.tail import skip_unscored
from foveate.model.tuning import training_mode
from foveate.train.step import packed
from foveate.types import Audio, Batch, Conversation, Example, Image, Media, MediaKind, Message, Role, Text, Video

RATE_HZ = 16_000
_SIZES = ((64, 64), (48, 80), (90, 50))  # height, width
_SECONDS = (0.6, 1.0, 0.8)
# A conversation in short: (role, what is said, the media of some kind given by their numbers).
Script = Sequence[tuple[Role, Sequence[str | int]]]
ABOUT: tuple[Script, ...] = tuple(
    (("user", (number, f"what color is object {number}?")), ("assistant", (answer,)))
    for number, answer in enumerate(("red circle", "three blue squares", "yes, the answer is yes"))
)
SAME: tuple[Script, ...] = (
    (("user", (0, "what color is it?")), ("assistant", ("red",))),
    (("user", (0, "what color is it?")), ("assistant", ("green, or blue",))),
    (("user", (0, "yes or no?")), ("assistant", ("yes",)), ("user", ("are you sure of it?",)), ("assistant", ("no, it may be a circle",))),
)
ODD: dict[str, Script] = {
    "two media": (("user", (0, 1, "compare them")), ("assistant", ("the same, but for the size",))),
    "several turns": (
        ("user", (2, "how many objects?")), ("assistant", ("two",)), ("user", ("say two or three",)), ("assistant", ("three",))
    ),
    "text alone": (("user", ("say yes or no, yes?",)), ("assistant", ("yes",))),
}  # fmt: skip


class CantDo(Exception):
    """What a family can't do and Foveate says so: a cell with a reason, not a failure."""


def picture(seed: int, size: tuple[int, int]) -> bytes:
    """A PNG of noise, height x width."""
    draw = np.random.default_rng(seed)
    out = io.BytesIO()
    Pillow.fromarray(draw.integers(0, 255, (*size, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def medium_file(kind: MediaKind, number: int, rate_hz: int = RATE_HZ) -> bytes | list[bytes]:
    """The number-th image or sound as a file, or a clip's frames as files; neighbours differ in size."""
    size = _SIZES[number % len(_SIZES)]
    if kind == "image":
        return picture(number, size)
    if kind == "video":
        return [picture(100 * number + i, size) for i in range(4)]
    samples = np.random.default_rng(number).normal(0, 0.1, int(rate_hz * _SECONDS[number % len(_SECONDS)]))
    out = io.BytesIO()
    soundfile.write(out, samples.astype("float32"), rate_hz, format="WAV")
    return out.getvalue()


def medium(kind: MediaKind, number: int, rate_hz: int = RATE_HZ) -> Media:
    """The same as a part of a conversation."""
    found = medium_file(kind, number, rate_hz)
    if kind == "video":
        return Video(frames=tuple(Image(data=frame) for frame in found), frames_fps=2.0, num_frames=4)
    return Image(data=found) if kind == "image" else Audio(data=found)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A family; `model` is never changed, columns take copies."""

    name: str
    model: nn.Module
    processor: Any

    @cached_property
    def family(self) -> Family:
        """The family's row."""
        return family_of(self.model.config)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that training would use, images as the processor makes them."""
        one_answer = self.family.decoder_start is not None
        return Encoder(self.processor, positions=positions_of(self.model.config), one_answer=one_answer)

    @property
    def rate_hz(self) -> int:
        """The rate of the sounds: the processor's own, so that none is resampled."""
        parts = vars(self.processor)
        features = parts.get("feature_extractor") or parts.get("audio_processor")
        return RATE_HZ if features is None else int(features.sampling_rate)

    @cached_property
    def kinds(self) -> tuple[MediaKind, ...]:
        """The kinds of media that processor and template take."""
        return tuple(kind for kind in ("image", "audio", "video") if kind in self.encoder.kinds)

    def about(self, kind: MediaKind) -> list[Conversation]:
        """Three conversations about one medium each, of different sizes."""
        return [self.played(script, kind) for script in ABOUT]

    @cached_property
    def odd(self) -> dict[str, Conversation]:
        """Conversations that not every family takes, by what they are: several media, several turns, none at all."""
        return {what: self.played(script, self.kinds[0]) for what, script in ODD.items()}

    def played(self, script: Script, kind: MediaKind) -> Conversation:
        """The script with media of one kind."""
        messages = []
        for role, parts in script:
            made = (Text(text=part) if isinstance(part, str) else medium(kind, part, self.rate_hz) for part in parts)
            messages.append(Message(role=role, parts=tuple(made)))
        return Conversation(messages=tuple(messages))

    @cached_property
    def examples(self) -> dict[str, list[Example]]:
        """Encoded conversations: by kind of medium, and the odd ones that the family takes."""
        found = {kind: [self.encoder(conversation) for conversation in self.about(kind)] for kind in self.kinds}
        for what, conversation in self.odd.items():
            try:
                found[what] = [self.encoder(conversation)]
            except DataError:
                continue  # `encodes` names it
        return found

    @property
    def refused(self) -> list[str]:
        """The odd conversations that the family does not take."""
        return [what for what in self.odd if what not in self.examples]

    @property
    def mixed(self) -> list[Example]:
        """One example of every kind and of every odd form, all different."""
        return [rows[i % len(rows)] for i, rows in enumerate(self.examples.values())] + self.examples[self.kinds[0]][1:2]

    def fresh(self) -> nn.Module:
        """A copy of the model to change, its last block as in training."""
        model = copy.deepcopy(self.model)
        skip_unscored(model)
        return model

    def padded(self, examples: Sequence[Example]) -> Batch:
        """The examples as one padded batch."""
        return collate_padded(examples, self.family, pad_id=self.encoder.pad_id)

    def batches(self, examples: Sequence[Example], *, packed: bool = False) -> list[Batch]:
        """The examples as one batch, padded or packed; as several where some of them must not share one."""
        rows = []
        for group, most in together({i: example.kinds for i, example in enumerate(examples)}, self.family.alone, None):
            rows += [group[i : i + (most or len(group))] for i in range(0, len(group), most or len(group))]
        join = partial(collate_packed, family=self.family) if packed else self.padded
        return [join([examples[i] for i in row]) for row in rows]


def loss_of(model: nn.Module, batches: Sequence[Batch], family: Family) -> Tensor:
    """The mean loss over the targets of all batches, as a training step computes it."""
    sums = []
    for batch in batches:
        with packed(batch, family):
            sums.append(loss_sum(model, batch, keeps_logits=keeps_logits(model)))
    return torch.stack(sums).sum() / sum(batch.num_targets for batch in batches)


def gradients(model: nn.Module, batches: Sequence[Batch], family: Family) -> tuple[float, dict[str, Tensor]]:
    """(mean loss over all targets, gradients by parameter) of micro-batches that belong to one step."""
    model.zero_grad(set_to_none=True)
    targets, total = sum(batch.num_targets for batch in batches), 0.0
    for batch in batches:
        with packed(batch, family):
            loss = loss_sum(model, batch, keeps_logits=keeps_logits(model)) / targets
            loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found: tuple[float, dict[str, Tensor]], wanted: tuple[float, dict[str, Tensor]], *, tolerance: float = 1e-5) -> None:
    """Equal loss and gradients; a gradient that is rounding noise is measured against the largest one."""
    assert abs(found[0] - wanted[0]) <= tolerance * max(1.0, abs(wanted[0])), f"loss {found[0]} is not {wanted[0]}"
    scale = max(float(grad.norm()) for grad in wanted[1].values())
    for name, grad in wanted[1].items():
        assert name in found[1], f"{name} has no gradient"
        off, size = float((found[1][name] - grad).norm()), float(grad.norm())
        assert off <= tolerance * max(size, 1e-3 * scale), f"{name}: gradients are {off:.2e} apart, of {size:.2e}"


def subject(name: str) -> Subject:
    """The family of this name, in training mode without dropout."""
    model, processor = tiny.build(name)
    training_mode(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return Subject(name=name, model=model, processor=processor)


def segmented(model: nn.Module) -> nn.Module:
    """The model, attending within each packed sample."""
    use_segments(model)
    return model


def logits_of(model: nn.Module, batches: Sequence[Batch]) -> Tensor:
    """[positions, vocabulary] of padded batches, in evaluation mode."""
    with torch.no_grad():
        return torch.cat([model.eval()(**batch.inputs, use_cache=False).logits.flatten(0, 1) for batch in batches])
