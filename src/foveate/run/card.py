"""Puts the model card of an export together from what the run wrote down and what the export measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foveate.batching.rows import Lengths, make_plan
from foveate.config.recipe import Recipe
from foveate.config.tree import parse_yaml
from foveate.data.adapters.named import NAMED
from foveate.data.mixture import Mixture
from foveate.errors import DataError
from foveate.model.base_files import base_file
from foveate.model.families import Family, family_of
from foveate.model.load import auto_class_name, keeps_template, resolve_id
from foveate.report.model_card import Books, Card, Metadata, ParityLine, loading_snippet, write_model_card
from foveate.report.run_files import SourceFacts, read_lines
from foveate.report.text import count, number, steps
from foveate.run.accounts import LEDGER
from foveate.run.base import Base
from foveate.run.certificate import Figures
from foveate.run.planned import read_lengths
from foveate.run.prepare import open_records, shares_rows, user_functions
from foveate.run.run_folder import PARITY
from foveate.run.trained import Trained
from foveate.run.visits import Visits
from foveate.train.parity import Difference
from foveate.types import Audio, Conversation, Image, Message, Origin, Text, kind_of

_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
_FILES = {"image": Image(path=Path("photo.jpg")), "audio": Audio(path=Path("sound.wav"))}  # of whoever runs the example
_LOOKED, _SHORT = 16, 300  # records looked at for a question, and its most characters
_PIPELINES = {"image": "image-text-to-text", "audio": "audio-text-to-text", "video": "video-text-to-text"}


def write_card(folder: Path, *, trained: Trained, base: Base, figures: Figures, about: Mapping[str, Any], allow_code: bool) -> Path:
    """Writes README.md into an export's folder."""
    recipe = trained.recipe
    named = base_name(base)
    before, after = trained.evaluations()
    mixture = _training_records(trained, allow_code=allow_code)
    books, sources = _books(trained, mixture, family_of(base.config))
    merged, alone = about["adapters"] == "merged", about["adapters"] == "kept"
    card = Card(
        name=trained.run_dir.resolve().name,
        summary=f"{named} after {_tuning(recipe)}, {steps(trained.step)}"
        + (", merged into its weights" if merged else "")
        + f"; {about['dtype']} weights. Trained with Foveate {about['versions']['foveate']}.",
        metadata=_metadata(trained, base, adapters=alone),
        snippet=_snippet(base, recipe, _asked(base, mixture), adapters=alone),
        sources=sources,
        books=books,
        before=before,
        after=after,
        measured=after.records if after is not None else None,
        parity_note=_parity_note(figures),
        parity=tuple(_parity_lines(figures)),
        recipe=(trained.run_dir / "recipe.yaml").read_text("utf-8"),
        versions=about["versions"],
        limits=tuple(_limits(trained, figures, about, measured=after is not None)),
    )
    return write_model_card(folder, card)


def base_name(base: Base) -> str:
    """What the card calls the base model: its hub id, or the last part of its folder's name."""
    return base.section.id if is_hub_id(base) else Path(base.section.id).name


def is_hub_id(base: Base) -> bool:
    """Whether the base model is named as on the hub: a folder's path means nothing to a reader of the card."""
    return not Path(resolve_id(base.section)).is_dir()


def _metadata(trained: Trained, base: Base, *, adapters: bool) -> Metadata:
    stated = _stated(base)
    kinds = base.encoder.kinds if base.encoder is not None else frozenset({"image"})
    name, link = stated.get("license_name"), stated.get("license_link")
    return Metadata(
        base_model=base.section.id if is_hub_id(base) else None,
        relation="adapter" if adapters else "finetune",
        library="peft" if adapters else "transformers",
        pipeline=next((_PIPELINES[kind] for kind in ("image", "video", "audio") if kind in kinds), None),
        license=stated.get("license"),
        license_name=name,
        license_link=link,
        datasets=_hub_sets(trained.recipe),
        tags=("foveate", *(("lora",) if trained.lora else ())),
    )


def _stated(base: Base) -> dict[str, str]:
    """What the base model's own card says of its licence; nothing where it says nothing that can be read."""
    readme = base_file(base.section, base.config, "README.md")
    front = _FRONT.match(readme.read_text("utf-8", errors="replace")) if readme is not None else None
    if front is None:
        return {}
    root, problems = parse_yaml(front[1], label=str(readme), base=readme.parent)
    values = root.plain() if root is not None and not problems else {}
    return {name: value for name, value in values.items() if isinstance(value, str)} if isinstance(values, dict) else {}


def _hub_sets(recipe: Recipe) -> tuple[str, ...]:
    """The hub's data sets that were trained on, by their ids."""
    found = [source.hub or (NAMED[source.use].hub if source.use in NAMED and source.path is None else None) for source in recipe.data.train]
    return tuple(dict.fromkeys(name for name in found if name and re.fullmatch(r"[\w.-]+/[\w.-]+", name)))


def _training_records(trained: Trained, *, allow_code: bool) -> Mixture | None:
    """None where the data can't be read any more."""
    functions = user_functions(trained.recipe, allow_code=allow_code)
    try:
        return open_records(trained.recipe, "train", functions)
    except DataError:
        return None


def _books(trained: Trained, mixture: Mixture | None, family: Family) -> tuple[Books | None, tuple[SourceFacts, ...]]:
    """The training records behind these weights, from the plan and the ledger, and the sources.

    Where the data can't be read any more, what the run wrote down at its end, if it came to one and these weights are of it.
    """
    facts = trained.facts
    sources = facts.data if facts is not None else ()
    lengths = read_lengths(trained.run_dir)  # None unless steps were planned ahead
    if mixture is not None and (lengths is not None) == trained.recipe.batch.planned_ahead:
        return _counted(trained, mixture, lengths, family), _without_folders(sources)
    done = facts is not None and facts.status == "done" and trained.final
    books = Books(read=facts.read, used=facts.used, quarantined=facts.quarantined, reasons=facts.reasons) if done else None
    return books, _without_folders(sources)


def _without_folders(sources: Sequence[SourceFacts]) -> tuple[SourceFacts, ...]:
    """Sources by the last part of their paths: the rest is of this machine, and stands in the recipe."""
    return tuple(replace(source, name=Path(source.name).name) if Path(source.name).is_absolute() else source for source in sources)


def _counted(trained: Trained, mixture: Mixture, lengths: Lengths | None, family: Family) -> Books:
    recipe = trained.recipe
    plan = make_plan(
        recipe.batch,
        recipe.train,
        records=len(mixture),
        window=mixture.window,
        lengths=lengths,
        packs=shares_rows(recipe, family),
        alone=family.alone,
    )
    lines = (line for line in read_lines(trained.run_dir / LEDGER) if line["split"] == "train")
    visits = Visits(mixture, plan)
    visits.enter(trained.step, {Origin(**line["origin"]): line["reason"] for line in lines})
    read, bad = visits.read(trained.step), len(visits.bad)
    return Books(read=read, used=read - bad, quarantined=bad, reasons=dict(Counter(visits.bad.values()).most_common()))


def _tuning(recipe: Recipe) -> str:
    tuning = recipe.tuning
    parts = " and ".join(tuning.parts)
    if tuning.type == "full":
        return f"full fine-tuning of {parts}"
    kind = ("DoRA" if tuning.dora else "LoRA") + (" (rank-stabilised)" if tuning.rslora else "")
    kind += f" of rank {tuning.rank} on {parts}"
    if recipe.model.quantize is not None:
        kind += f", trained over {recipe.model.quantize.bits}-bit weights"
    return kind + (f", and {' and '.join(tuning.also_full)} in full" if tuning.also_full else "")


def _asked(base: Base, mixture: Mixture | None) -> Conversation:
    """What the example asks: the first short question of the training data, of those about a picture or a sound if there are any.

    Made up where no record is short and about at most one picture or sound.
    """
    found: list[Conversation] = []
    for slot in range(min(_LOOKED, len(mixture)) if mixture is not None else 0):
        try:
            record = mixture.conversation(slot)
        except DataError:
            continue
        asked = _question(record)
        if asked is not None and asked.media:
            return asked
        found += [asked] if asked is not None else []
    if found:
        return found[0]
    kinds = base.encoder.kinds if base.encoder is not None else frozenset({"image"})
    medium = next((kind for kind in _FILES if kind in kinds), None)
    text = Text(text=f"Describe the {medium}." if medium else "Hello!")
    return Conversation(messages=(Message(role="user", parts=(*((_FILES[medium],) if medium else ()), text)),))


def _question(record: Conversation) -> Conversation | None:
    """A record up to its first question, about a file of the reader's; None where it does not make a short example."""
    first = next((number for number, message in enumerate(record.messages) if message.role == "user"), None)
    if first is None or {message.role for message in record.messages[:first]} - {"system"} or record.tools:
        return None
    kept = record.messages[: first + 1]
    parts = [part for message in kept for part in message.parts]
    media = [part for part in parts if not isinstance(part, Text)]
    length = sum(len(part.text) for part in parts if isinstance(part, Text))
    if length > _SHORT or len(media) > 1 or any(kind_of(medium) not in _FILES for medium in media):
        return None
    named = [tuple(part if isinstance(part, Text) else _FILES[kind_of(part)] for part in message.parts) for message in kept]
    return Conversation(messages=tuple(replace(message, parts=parts) for message, parts in zip(kept, named, strict=True)))


def _snippet(base: Base, recipe: Recipe, asked: Conversation, *, adapters: bool) -> str:
    medium = next((kind_of(part) for part in asked.media), None)
    chat = base.encoder.chat(asked) if base.encoder is not None else [{"role": "user", "content": [{"type": "image"}]}]
    rate = base.encoder.rate_hz if base.encoder is not None else 0
    family = family_of(base.config)
    return loading_snippet(
        auto_class=auto_class_name(base.config),
        base=resolve_id(recipe.model) if adapters else None,
        chat=chat,
        medium=medium,
        rate_hz=rate,
        grows=bool(base.tokens.ids),
        adapter=family.processor,
        keeps_template=keeps_template(base.processor),
        max_new_tokens=recipe.evaluate.max_new_tokens,
        encoder_decoder=family.decoder_start is not None,
    )


def _parity_note(figures: Figures) -> str:
    text = (
        f"Compared on {count(figures.records)} records at {count(figures.positions)} supervised positions; the largest logit is "
        f"{number(figures.largest_logit)}."
    )
    if figures.tuning_effect is not None:
        text += f" The tuning changes logits by up to {number(figures.tuning_effect)}."
    text += f" All {count(figures.tensors)} tensors load back bit for bit, and the written processor makes the same ids, labels and media."
    return f"{text} `{PARITY}` has the figures, and the SHA-256 of every file."


def _parity_lines(figures: Figures) -> list[ParityLine]:
    named = {
        "merged in float32, against the adapters": figures.merged,
        "this folder, against the model that was trained": figures.written,
        "this folder, against the merged model in float32": figures.written_merged,
        "adapters on the plain base, against those on the quantised base": figures.quantised,
    }
    return [_line(what, found) for what, found in named.items() if found is not None]


def _line(what: str, found: Difference) -> ParityLine:
    return ParityLine(what=what, largest=found.largest, tolerance=found.tolerance, agreement=found.agreement)


def _limits(trained: Trained, figures: Figures, about: Mapping[str, Any], *, measured: bool) -> list[str]:
    lines = [
        "It was measured on the held-out records named above alone; what it does on others is not known."
        if measured
        else "It was not measured on held-out data; what it is worth is not known."
    ]
    found = figures.written
    rounded = about["dtype"] != "float32" and found is not None and figures.tuning_effect is not None
    if rounded and found.largest > figures.tuning_effect / 2:
        lines.append(
            f"Rounding to {about['dtype']} changes logits by up to {number(found.largest)}, the tuning by up to "
            f"{number(figures.tuning_effect)}: float32 weights, or the adapters, keep more of it."
        )
    if not trained.facts or trained.facts.status != "done":
        lines.append("The run did not come to its end.")
    if options := trained.recipe.model.template_options:
        lines.append(f"Its chat template was given {options} in training: pass these to `apply_chat_template`.")
    overlaps = [note for note in (trained.facts.notes if trained.facts else ()) if "overlap" in note]
    return [*lines, *(line[0].upper() + line[1:] + "." for line in (*overlaps, *about["notes"]))]
