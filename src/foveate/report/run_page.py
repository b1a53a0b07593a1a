"""report.html: the whole run on one self-contained page, made from the files of the run folder alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from foveate.errors import FoveateError
from foveate.report import answers, curves
from foveate.report.model_card import RESTORED, print_answer
from foveate.report.render import highlight, render
from foveate.report.run_files import EvalFile, RunFacts, read_evals, read_lines, write_whole
from foveate.report.speed import Speed
from foveate.report.text import count, duration, percent, short_count, short_flops, size

_LEDGER_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One figure under the headline."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One quarantined record as shown."""

    origin: str
    reason: str
    problem: str
    fix: str


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into the run folder, from what is there: a run in progress gives a report without its end.

    Raises FoveateError when the folder holds no run, or when one of its files is damaged.
    """
    if not run_dir.is_dir():
        raise FoveateError("no such folder", where=str(run_dir), fix="name the folder of a run, e.g. runs/demo")
    facts = RunFacts.read_from(run_dir)
    lines = read_lines(run_dir / "metrics.jsonl")
    evals = read_evals(run_dir)
    return write_whole(run_dir / "report.html", render("run.html.j2", **_page(run_dir, facts, lines, evals)))


def _page(run_dir: Path, facts: RunFacts, lines: Sequence[dict[str, Any]], evals: Sequence[EvalFile]) -> dict[str, Any]:
    recipe_text = (run_dir / "recipe.yaml").read_text(encoding="utf-8") if (run_dir / "recipe.yaml").is_file() else ""
    recipe = _recipe(recipe_text)
    steps = [line for line in lines if line["event"] == "step"]
    before, after = answers.ends(evals)
    metric = answers.primary_metric(evals, recipe.get("train", {}).get("best"))
    measured = [name for name in ("exact_match", "vqa_accuracy", "wer", "loss") if any(name in item.metrics for item in evals)]
    cards = answers.cards(metric, before, after, run_dir)
    ledger = [_ledger_line(line) for line in read_lines(run_dir / "quarantine.jsonl")]
    page = {
        "facts": facts,
        "summary": _summary(recipe, facts),
        "headline": answers.headline(metric, before, after) if metric else None,
        "other_metrics": [answers.change(name, before, after) for name in measured if name != metric],
        "outcomes": answers.outcomes(metric, before, after) if metric else [],
        "tiles": _tiles(facts, steps),
        "figures": curves.figures(lines, evals),
        "curve_note": f"{count(len(steps))} steps. Hover a chart, or focus it and use the arrow keys.",
        "questions": answers.by_question(metric, before, after) if metric else [],
        "cards": cards,
        "filters": _filters(cards),
        "misses": answers.misses(metric, after, cards),
        "gallery_note": _gallery_note(len(cards), after or before),
        "ledger": ledger[:_LEDGER_LINES],
        "ledger_rest": max(0, len(ledger) - _LEDGER_LINES),
        "snippet": highlight(snippet(facts, run_dir, *[card.question for card in cards[:1] if card.question]), "python")
        if facts.checkpoint
        else "",
        "recipe": [Markup(line) for line in highlight(recipe_text, "yaml").rstrip("\n").split("\n")] if recipe_text else [],
        "environment": _environment(facts),
    }
    return page | {"sections": _sections(page)}


def _sections(page: dict[str, Any]) -> list[tuple[str, str]]:
    present = {"curves": page["figures"], "answers": page["cards"], "recipe": page["recipe"]}
    names = {"curves": "Curves", "answers": "Answers", "data": "Data", "model": "Model", "recipe": "Recipe", "run": "Run"}
    return [(id_, name) for id_, name in names.items() if present.get(id_, True)]


def _recipe(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML, YAMLError

    try:
        values = YAML(typ="safe", pure=True).load(text) if text else None
    except YAMLError as error:
        raise FoveateError(
            f"not YAML: {error}", where="recipe.yaml", fix="the run's recipe.yaml was changed by hand; restore it"
        ) from error
    return values if isinstance(values, dict) else {}


def _summary(recipe: dict[str, Any], facts: RunFacts) -> list[str]:
    pieces = []
    model, tuning = recipe.get("model"), recipe.get("tuning")
    if model and "id" in model:
        pieces.append(str(model["id"]))
    if tuning and "type" in tuning:
        parts = ", ".join(tuning.get("parts", ()))
        kind = f"LoRA, rank {tuning.get('rank')}" if tuning["type"] == "lora" else "full fine-tuning"
        pieces.append(f"{kind}, of {parts}" if parts else kind)
    if facts.finished_at:
        pieces.append(facts.finished_at.replace("T", " ")[:16])
    return pieces


def _tiles(facts: RunFacts, steps: Sequence[dict[str, Any]]) -> list[Tile]:
    tokens = sum(line["tokens"] for line in steps)
    seconds = sum(line["time_s"] for line in steps)
    samples = sum(line["samples"] for line in steps)
    padding = sum(line["padding"] * line["tokens"] for line in steps) / tokens if tokens else 0.0
    tiles = [
        Tile(name="Steps", value=count(steps[-1]["step"]) if steps else "0", detail=f"{count(samples)} samples"),
        Tile(
            name="Training time",
            value=duration(facts.time_s or seconds),
            detail=f"{duration(facts.total_time_s)} with evaluation" if facts.total_time_s else "",
        ),
        Tile(name="Useful tokens/s", value=count(round(tokens / seconds)) if seconds else "–", detail=f"{percent(padding)} padding"),
    ]
    shared, media = (sum(line.get(name, 0) for line in steps) for name in ("shared_media", "media"))
    if shared:
        saved = sum(line["shared_tokens"] for line in steps)
        detail = f"of {count(media + shared)}; {count(saved)} tokens saved"
        tiles.append(Tile(name="Media not encoded again", value=count(shared), detail=detail))
    tiles += _compute(Speed.of(steps))
    if facts.params:
        share = facts.params.trained / max(facts.params.total, 1)
        detail = f"{percent(share)} of {short_count(facts.params.total)}"
        tiles.append(Tile(name="Trained parameters", value=short_count(facts.params.trained), detail=detail))
    if facts.peak_memory_bytes:
        tiles.append(Tile(name="Peak memory", value=size(facts.peak_memory_bytes), detail="of the training process"))
    detail = f"{count(facts.quarantined)} quarantined" if facts.quarantined else "none quarantined"
    return [*tiles, Tile(name="Records used", value=count(facts.used), detail=detail)]


def _compute(speed: Speed | None) -> list[Tile]:
    if speed is None or speed.flops is None:
        return []
    detail = "vision counted" if speed.mfu is None else f"{percent(speed.mfu)} of the devices' peak (MFU)"
    return [Tile(name="Model FLOP/s", value=short_flops(speed.flops), detail=detail)]


def _filters(cards: Sequence[answers.Card]) -> list[tuple[str, str, int]]:
    kinds = Counter(card.kind for card in cards)
    names = {"fixed": "Newly right", "kept": "Right twice", "wrong": "Still wrong", "broken": "Newly wrong"}
    return [("all", "All", len(cards)), *((kind, name, kinds[kind]) for kind, name in names.items() if kinds[kind])]


def _gallery_note(shown: int, item: EvalFile | None) -> str:
    total = len(item.rows) if item else 0
    return f"{count(shown)} of {count(total)} shown; all are in eval/{item.name}" if item and total > shown else f"all {count(total)} shown"


def _ledger_line(line: dict[str, Any]) -> LedgerLine:
    origin = line.get("origin", {})
    where = f"{origin.get('file') or origin.get('dataset', '')} row {origin.get('row', '')}" if isinstance(origin, dict) else str(origin)
    return LedgerLine(origin=where, reason=line.get("reason", ""), problem=line.get("problem", ""), fix=line.get("fix", ""))


def snippet(facts: RunFacts, run_dir: Path, question: str = "What is in the picture?") -> str:
    """Code that loads the final model with transformers (and peft where it holds adapters) and asks it about an image."""
    folder, auto = json.dumps(facts.checkpoint), facts.auto_class
    adapter = next((path for path in (Path(facts.checkpoint), run_dir / "model") if (path / "adapter_config.json").is_file()), None)
    lora = adapter is not None or (facts.params is not None and any(part.how == "lora" for part in facts.params.table))
    asks = auto == "AutoModelForImageTextToText"
    lines = ["from peft import PeftModel"] if lora else []
    lines += ["from PIL import Image"] if asks else []
    lines += [f"from transformers import {auto}, AutoProcessor", "", f"processor = AutoProcessor.from_pretrained({folder})"]
    lines += [RESTORED] if not facts.keeps_template else []
    if lora:
        # peft's own record of the base wins: it is a path or id that from_pretrained takes.
        saved = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")) if adapter else {}
        base = json.dumps(saved.get("base_model_name_or_path") or facts.base_model)
        lines += [f"base = {auto}.from_pretrained({base})"]
        if facts.new_vocabulary:
            lines += [f"base.resize_token_embeddings({facts.new_vocabulary})  # room for the new tokens, whose rows the adapter holds"]
        lines += [f"model = PeftModel.from_pretrained(base, {folder})"]
    else:
        lines += [f"model = {auto}.from_pretrained({folder})"]
    return "\n".join(lines + (_asking(question, encoder_decoder=facts.encoder_decoder) if asks else [])) + "\n"


def _asking(question: str, *, encoder_decoder: bool) -> list[str]:
    return [
        "",
        f"question = {json.dumps(question, ensure_ascii=False)}",
        'content = [{"type": "image", "image": Image.open("photo.jpg")}, {"type": "text", "text": question}]',
        "inputs = processor.apply_chat_template(",
        '    [{"role": "user", "content": content}],',
        '    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",',
        ")",
        "output = model.generate(**inputs, max_new_tokens=64)",
        print_answer(encoder_decoder=encoder_decoder),
    ]


def _environment(facts: RunFacts) -> list[tuple[str, str]]:
    pairs = list(facts.versions.items())
    if facts.checkpoint:
        pairs.append(("final model", facts.checkpoint))
    return pairs
