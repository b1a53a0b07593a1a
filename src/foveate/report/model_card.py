"""README.md of an exported model: what it was trained on, what it is worth, how it was made. Nothing in it is invented."""

from __future__ import annotations

import pprint
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.report.run_files import EvalFile, SourceFacts
from foveate.report.text import count, metric_name, metric_value, number, percent

RESTORED = "processor.chat_template = processor.tokenizer.chat_template  # lost as a processor of this class is loaded"
TEMPLATE = Path(__file__).parent / "templates" / "model_card.md.j2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """The card's front matter, as the Hugging Face hub reads it; what is None or empty is left out."""

    base_model: str | None  # a hub id: a folder of the user's means nothing to anyone else
    relation: str  # finetune | adapter
    library: str  # transformers | peft
    pipeline: str | None = None
    license: str | None = None  # only where the base model's own card states it
    license_name: str | None = None
    license_link: str | None = None
    datasets: tuple[str, ...] = ()  # hub ids
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Training records behind the weights: read = used + quarantined; None where that is not known."""

    read: int
    used: int
    quarantined: int
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityLine:
    """One comparison of the certificate."""

    what: str
    largest: float
    tolerance: float | None
    agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Everything that the card says."""

    name: str
    summary: str
    metadata: Metadata
    snippet: str
    sources: tuple[SourceFacts, ...]
    books: Books | None
    before: EvalFile | None
    after: EvalFile | None
    measured: int | None  # held-out records that the metrics are of; None where the run did not write it down
    parity_note: str
    parity: tuple[ParityLine, ...]
    recipe: str  # YAML
    versions: Mapping[str, str]
    limits: tuple[str, ...]


def write_model_card(folder: Path, card: Card) -> Path:
    """Writes README.md into `folder`."""
    from huggingface_hub import ModelCard, ModelCardData

    meta = card.metadata
    data = ModelCardData(
        base_model=meta.base_model,
        base_model_relation=meta.relation if meta.base_model else None,
        library_name=meta.library,
        pipeline_tag=meta.pipeline,
        license=meta.license,
        license_name=meta.license_name,
        license_link=meta.license_link,
        datasets=list(meta.datasets) or None,
        tags=list(meta.tags),
    )
    made = ModelCard.from_template(data, template_path=str(TEMPLATE), **_sections(card))
    path = folder / "README.md"
    path.write_text(made.content.rstrip("\n") + "\n", encoding="utf-8")
    return path


def _sections(card: Card) -> dict[str, Any]:
    rows = _result_rows(card.before, card.after, card.measured)
    return {
        "name": card.name,
        "summary": card.summary,
        "snippet": card.snippet.rstrip("\n"),
        "accounting": _accounting(card.books),
        "sources": [_row(source.name, source.split, count(source.records), source.format) for source in card.sources],
        "reasons": [_row(f"`{reason}`", count(records)) for reason, records in card.books.reasons.items()] if card.books else [],
        "results": rows,
        "results_counted": card.measured is not None,
        "results_note": _results_note(card.before, card.after),
        "parity_note": card.parity_note,
        "parity": [
            _row(line.what, number(line.largest), allowed(line.tolerance), percent(line.agreement)) for line in card.parity
        ],
        "recipe": card.recipe.rstrip("\n"),
        "versions": [_row(name, version) for name, version in card.versions.items()],
        "limits": list(card.limits),
    }


def _row(*cells: str) -> str:
    """Cells of a Markdown table; what would end a cell is written so that it does not."""
    return " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells)


def _accounting(books: Books | None) -> str:
    if books is None:
        return "How many records were used is not known: the run was cut off before it closed its books, and its data could not be read."
    line = f"{count(books.read)} training records were read: {count(books.used)} used, {count(books.quarantined)} quarantined"
    return line + (" for these reasons." if books.reasons else ".") + " A quarantined record is never trained on, nor replaced."


def _results_note(before: EvalFile | None, after: EvalFile | None) -> str:
    if after is None:
        return "These weights were not measured on held-out data."
    stated = "measured on the held-out records (`data.eval`)"
    return f"Before and after training, {stated}." if before is not None else f"{stated.capitalize()}; the base model was not measured."


def _result_rows(before: EvalFile | None, after: EvalFile | None, measured: int | None) -> list[str]:
    if after is None:
        return []
    first = before.metrics if before is not None else {}
    counted = [count(measured)] if measured is not None else []
    return [
        _row(metric_name(name), metric_value(name, first.get(name)), metric_value(name, value), *counted)
        for name, value in after.metrics.items()
    ]


def allowed(tolerance: float | None) -> str:
    """A tolerance as a table says it."""
    return "stated only" if tolerance is None else number(tolerance)


def print_answer(*, encoder_decoder: bool) -> str:
    """The line of a snippet that prints what `generate` wrote: behind the prompt, or behind the one token that a decoder begins with."""
    begin = "1" if encoder_decoder else 'inputs["input_ids"].shape[1]'
    return f"print(processor.decode(output[0, {begin}:], skip_special_tokens=True))"


def loading_snippet(
    *,
    auto_class: str,
    base: str | None,
    chat: Sequence[Mapping[str, Any]],
    medium: str | None,
    rate_hz: int,
    grows: bool = False,
    adapter: str | None = None,
    keeps_template: bool = True,
    max_new_tokens: int = 64,
    encoder_decoder: bool = False,
) -> str:
    """Python that loads the folder and generates an answer.

    Args:
        base: the base model of adapters; None for a whole model.
        chat: a conversation as the model's chat template takes it.
        medium: image or audio, where the chat holds one; None for text alone.
        rate_hz: samples a second that the processor takes.
        grows: tokens were added, so that the base model of adapters needs rows for them before they are put on it.
        adapter: the module that makes the family's processor callable with text and media, which transformers alone does not.
        keeps_template: whether a loaded processor has its chat template; else only its tokenizer has.
        max_new_tokens: the longest answer, in tokens.
        encoder_decoder: whether the output is the answer alone, without the prompt.
    """
    imports = {"image": "from PIL import Image", "audio": "import soundfile"}
    media = {
        "image": 'images=[Image.open("photo.jpg")], ',
        "audio": f'audio=[soundfile.read("sound.wav", dtype="float32")[0]], sampling_rate={rate_hz}, ',  # mono
    }
    lines = [imports[medium]] if medium is not None else []
    lines += ["from peft import PeftModel"] if base is not None else []
    lines += [f"from {adapter} import adapt"] if adapter is not None else []
    lines = sorted(lines, key=lambda line: (line.startswith("from"), line.casefold()))
    lines += [f"from transformers import {auto_class}, AutoProcessor", "", 'folder = "."  # this folder, or its id on the hub']
    if adapter is None:
        lines += ["processor = AutoProcessor.from_pretrained(folder)"]
    else:
        lines += ["# This family's processor in transformers does not take a chat with media as below; Foveate's `adapt` makes it do so."]
        lines += ["processor = adapt(AutoProcessor.from_pretrained(folder))"]
    lines += [RESTORED] if not keeps_template else []
    if base is not None:
        lines += [f"model = {auto_class}.from_pretrained({base!r})"]
        if grows:
            rows = "max(len(processor.tokenizer), model.get_input_embeddings().num_embeddings)"
            lines += [f"model.resize_token_embeddings({rows})  # for the tokens that were added"]
        lines += ["model = PeftModel.from_pretrained(model, folder)"]
    else:
        lines += [f"model = {auto_class}.from_pretrained(folder)"]
    lines += ["", f"chat = {pprint.pformat(list(chat), width=100, sort_dicts=False)}"]
    lines += ["text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)"]
    lines += [f'inputs = processor(text=[text], {media.get(medium or "", "")}return_tensors="pt").to(model.device, model.dtype)']
    lines += [f"output = model.generate(**inputs, max_new_tokens={max_new_tokens})"]
    lines += [print_answer(encoder_decoder=encoder_decoder)]
    return "\n".join(lines) + "\n"
