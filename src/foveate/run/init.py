"""`foveate init`: looks at data and writes a recipe that suits it, each choice with its reason beside it."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from foveate.config.data import DataSection, SourceSection
from foveate.config.model import ModelSection
from foveate.config.recipe import Recipe
from foveate.data.media import image_size
from foveate.data.mixture import Mixture, build_mixture
from foveate.data.scan import scan
from foveate.encode.encoder import Encoder
from foveate.errors import DataError, FoveateError
from foveate.events import Quarantined
from foveate.run.prepare import load_encoder
from foveate.types import Conversation, Image, MediaKind, kind_of

LOOKED_AT = 500  # records
_HELD_OUT = ("validation", "valid", "val", "dev", "eval", "test")
_MOST_HELD_OUT = 500
_SMALLEST = 20  # records; of fewer none is held out
_CLASSES = 20  # most answers that are taken for the names of classes
_SHORT_WORDS = 4
# By what the records hold: a small model that is known to take it.
MODELS: dict[frozenset[MediaKind], str] = {
    frozenset(): "HuggingFaceTB/SmolVLM-500M-Instruct",
    frozenset({"image"}): "HuggingFaceTB/SmolVLM-500M-Instruct",
    frozenset({"video"}): "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    frozenset({"image", "video"}): "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    frozenset({"audio"}): "Qwen/Qwen2-Audio-7B-Instruct",
}
_ANY_MODEL = "Qwen/Qwen2.5-Omni-3B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was seen in the first records of a source."""

    section: SourceSection
    mixture: Mixture
    form: str  # the format's name
    looked: int
    usable: tuple[Conversation, ...]
    bad: tuple[Quarantined, ...]
    pixels: tuple[int, ...]  # height x width of every image

    @property
    def kinds(self) -> frozenset[MediaKind]:
        """The media that occur."""
        return frozenset(kind_of(medium) for conversation in self.usable for medium in conversation.media)

    @property
    def answers(self) -> list[str]:
        """The text of every trained turn."""
        return [message.text for conversation in self.usable for message in conversation.messages if message.trained]

    @property
    def classes(self) -> list[str]:
        """The answers, sorted, where they seem to be names of classes: few, short, each met more than once on average."""
        found = sorted(set(self.answers))
        short = all(len(answer.split()) <= _SHORT_WORDS for answer in found)
        return found if short and 1 < len(found) <= _CLASSES and len(self.answers) >= 2 * len(found) else []


@dataclass(slots=True, kw_only=True, eq=False)
class Draft:
    """A recipe in the making: its sections' values, and the comment beside each key."""

    values: dict[str, dict] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)  # "batch.size" -> why

    def put(self, key: str, value: object, why: str = "") -> None:
        """Set `section.key`, with its comment."""
        section, _, name = key.partition(".")
        self.values.setdefault(section, {})[name] = value
        if why:
            self.comments[key] = why


def survey(section: SourceSection, *, offline: bool) -> Survey:
    """Look at the first records, of `split: train` where the source holds several splits and none was chosen.

    Raises DataError when the source can't be opened, or its format not be told.
    """
    try:
        mixture = build_mixture([section], offline=offline)
    except DataError as error:
        if error.reason != "bad_split" or section.split is not None:
            raise
        section = section.model_copy(update={"split": "train"})
        mixture = build_mixture([section], offline=offline)
    looked, usable, bad, pixels = 0, [], [], []
    rules = mixture.rules
    for verdict in scan(mixture, level="headers", rules=rules, on_bad=bad.append, indices=list(mixture.first(LOOKED_AT))):
        looked += 1
        if verdict.conversation is not None:
            usable.append(verdict.conversation)
            images = [part for part in verdict.conversation.media if isinstance(part, Image)]
            pixels += [height * width for height, width in (image_size(image, rules=rules) for image in images)]
    form = mixture.formats[0].split(" ")[0]
    return Survey(
        section=section, mixture=mixture, form=form, looked=looked, usable=tuple(usable), bad=tuple(bad), pixels=tuple(pixels)
    )  # fmt: skip


def held_out(found: Survey, *, offline: bool) -> tuple[SourceSection, SourceSection | None, str]:
    """(section to train on, section to hold out or None, why): another split, a file beside it, or the last records.

    Raises DataError when what lies beside the data is there, but can't be used.
    """
    section = found.section
    for other in _other_splits(section):
        try:
            build_mixture([other], offline=offline)
        except DataError as error:
            if error.reason != "bad_split":
                raise
            continue  # there is none of that name
        return section, other, "the held-out split that lies beside it"
    records = found.mixture.records
    if records < _SMALLEST or (section.split or "").endswith("]"):
        return section, None, "name held-out records under `eval:` to measure what is learnt"
    start = _border(found.mixture, records - min(_MOST_HELD_OUT, records // 10))
    name, last = section.split or "", records - start
    train, kept = (section.model_copy(update={"split": f"{name}{part}"}) for part in (f"[:-{last}]", f"[-{last}:]"))
    return train, kept, f"the last {last:,} records, which are not trained on"


def _other_splits(section: SourceSection) -> list[SourceSection]:
    """Where held-out records usually are: a split of the same source, or a file of the same name but for the split's."""
    if section.split == "train":
        return [section.model_copy(update={"split": name}) for name in ("validation", "test")]
    if section.path is None:
        return []
    path = Path(section.path)
    if "train" not in path.name:
        return []
    beside = [path.with_name(path.name.replace("train", name)) for name in _HELD_OUT]
    return [section.model_copy(update={"path": str(other)}) for other in beside if other.exists()]


def _border(mixture: Mixture, start: int) -> int:
    """The nearest place at or before `start` where the records' media change, so that no picture is on both sides."""
    for place in range(start, max(1, start - 200), -1):
        if not (_shown(mixture, place - 1) & _shown(mixture, place)):
            return place
    return start


def _shown(mixture: Mixture, place: int) -> set:
    try:
        return {medium.path or medium.data for medium in mixture.conversation(place).media}
    except DataError:
        return set()


def draft(found: Survey, *, model: str, offline: bool) -> Draft:
    """A recipe for the data: every choice follows from what was seen."""
    made = Draft()
    made.put("model.id", model, _why_model(found, model))
    if offline:
        made.put("model.offline", True)
    parts = ["language", "projector"] if found.kinds else ["language"]
    made.put("tuning.type", "lora", "`full` trains all weights of the parts instead")
    made.put("tuning.rank", 16)
    made.put("tuning.alpha", 32)
    made.put("tuning.parts", parts, "the vision tower stays as it is: add `vision` if the pictures are unlike photographs")
    train, kept, why = held_out(found, offline=offline)
    if found.form == "caption" and found.classes:
        names = ", ".join(found.classes).replace("{", "{{").replace("}", "}}")  # a prompt's single braces name columns
        prompt = f"What is shown? Answer with one of: {names}."
        train = train.model_copy(update={"prompt": prompt})
        kept = kept and kept.model_copy(update={"prompt": prompt})
    made.put("data.train", [train], "" if kept is not None else why)
    if kept is not None:
        made.put("data.eval", [kept], why)
    bad = f"{len(found.bad)} of the {found.looked:,} records looked at are bad: mend them, or tolerate so many" if found.bad else ""
    made.put("data.max_bad", 0, bad or "bad records tolerated: a count, or a share as `1%`; the first one stops the run")
    encoder = _encoder(made)
    tokens = _lengths(encoder, found)
    made.put("batch.size", 16 if found.mixture.records >= 160 else 4, "records per optimizer step")
    made.put("batch.max_tokens", _budget(tokens), _why_budget(tokens, found))
    made.put("optim.lr", 2e-4, "the usual size for LoRA; full fine-tuning wants a tenth of it")
    made.put("optim.warmup", 0.03, "share of all steps")
    steps = -(-found.mixture.records // made.values["batch"]["size"])
    every = steps if steps < 1000 else steps // 4
    made.put("train.epochs", 3 if steps < 2000 else 1, f"an epoch is {steps:,} steps")
    if kept is not None:
        made.put("train.eval_every", every)
        metrics, reason = _metrics(found)
        made.put("evaluate.metrics", metrics, reason)
        made.put("evaluate.max_new_tokens", _answer_tokens(encoder, found), "the longest answer that was seen, and a quarter more")
        made.put("evaluate.limit", 200, "held-out records that are measured")
    made.put("train.save_every", every)
    return made


def default_model(kinds: frozenset[MediaKind]) -> str:
    """A small model that takes these media."""
    return MODELS.get(kinds, _ANY_MODEL)


def _why_model(found: Survey, model: str) -> str:
    if model == "foveate:tiny":
        what = " and ".join(sorted(found.kinds)) or "text"
        return f"a toy that ships with Foveate, for trying things out; for {what}: {default_model(found.kinds)}, for one"
    return "any multimodal model of the Hugging Face hub, or a local folder"


def _encoder(made: Draft) -> Encoder | None:
    """The encoder of the chosen model; None where its processor can't be had."""
    recipe = Recipe(model=ModelSection(**made.values["model"]), data=DataSection(train=made.values["data"]["train"]))
    try:
        return load_encoder(recipe)[2]
    except FoveateError:
        return None


def _lengths(encoder: Encoder | None, found: Survey) -> list[int]:
    """Tokens of every record that was seen; none without an encoder."""
    lengths = []
    for conversation in found.usable if encoder is not None else ():
        try:
            lengths.append(encoder.length(conversation).tokens)
        except DataError:  # said by `check`, with the reason
            continue
    return lengths


def _budget(tokens: list[int]) -> int:
    """A micro-batch of several usual records that also holds the longest one, in steps of 256."""
    if not tokens:
        return 4096
    wanted = max(max(tokens) * 5 // 4, 4 * round(statistics.median(tokens)))
    return max(512, -(-wanted // 256) * 256)


def _why_budget(tokens: list[int], found: Survey) -> str:
    if not tokens:
        return "tokens in a micro-batch; `foveate check` tells what the records need once the model can be reached"
    return f"tokens in a micro-batch; the longest of {len(found.usable):,} records has {max(tokens):,}"


def _answer_tokens(encoder: Encoder | None, found: Survey) -> int:
    """Tokens that an evaluation lets the model write, in steps of 8."""
    if encoder is None:
        longest = max((len(answer) for answer in found.answers), default=64) // 3  # characters a token, on the safe side
    else:
        longest = max((encoder.count(answer) for answer in found.answers), default=64)
    return max(8, -(-longest * 5 // 4 // 8) * 8)


def _metrics(found: Survey) -> tuple[list[str], str]:
    if found.form == "asr":
        return ["loss", "wer"], "word error rate of the transcriptions"
    several = sum(len(conversation.answers) > 1 for conversation in found.usable)
    if several > len(found.usable) // 2:
        return ["loss", "vqa_accuracy"], "most records have several accepted answers"
    words = statistics.median(len(answer.split()) for answer in found.answers) if found.answers else 0
    if words <= _SHORT_WORDS:
        return ["loss", "exact_match"], "the answers are short"
    return ["loss"], "the answers are too long to be compared word by word"


def relative(section: SourceSection, folder: Path) -> dict:
    """The section as it is written into a recipe in `folder`: only what is set, paths relative to it."""
    written = section.model_dump(mode="json", exclude_defaults=True)
    for key in ("path", "media_root"):
        if key in written:
            written[key] = os.path.relpath(written[key], folder)
    return written
