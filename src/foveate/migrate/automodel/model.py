"""`model`, `processor`, `peft` and `freeze_config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foveate.migrate.draft import Draft
from foveate.migrate.options import looks_local, placed
from foveate.migrate.quantize import quantise
from foveate.migrate.towers import Towers, touched, towers_of

DTYPES = {
    "bfloat16": "bfloat16", "bf16": "bfloat16", "float16": "float16", "fp16": "float16", "half": "float16", "float32": "float32",
    "fp32": "float32", "float": "float32", "auto": "auto",
}  # fmt: skip
# What Automodel's `freeze_vision_tower` and its kin look for in the modules' names.
_VISION_WORDS, _AUDIO_WORDS = ("vision", "visual", "image_encoder"), ("audio", "speech", "sound")
_TOWER_WORDS = (
    *_VISION_WORDS,
    *_AUDIO_WORDS,
    "image",
    "lm_head",
    "projector",
    "merger",
    "connector",
    "patch_merge",
    "embed_tokens",
    "timm",
)
_PARTS = ("vision", "projector", "language", "embeddings", "head")


def build_model(draft: Draft, base: Path) -> None:
    """`model:` and what the processor is told."""
    key = _model_key(draft)
    name = draft.text(key) if key else None
    if name is None:
        draft.map("(model)", "model.id", "model/id", "name the base model", "manual")
    else:
        local = looks_local(name)
        draft.map(key or "", "model.id", placed(name, base) if local else name)
        if key != "model.config.name_or_path":
            draft.took("model.config.name_or_path", "unneeded", "the model is named already")
    for revision in ("model.revision", "model.config.revision"):
        draft.map(revision, "model.revision", draft.text(revision))
    _dtype(draft)
    _quantize(draft)
    for section in ("model", "processor", "tokenizer"):
        remote_code(draft, f"{section}.trust_remote_code", first=section == "model")
    _processor(draft, name)
    for key in ("processor.chat_template", "tokenizer.chat_template", "dataset.chat_template"):
        template = draft.text(key)
        if template is not None and "model.chat_template" not in draft.values:
            draft.map(key, "model.chat_template", placed(template, base) if looks_local(template) else template)
        else:
            draft.took(key, "unneeded", "the template is named already")


def _quantize(draft: Draft) -> None:
    """4 or 8 bits by bitsandbytes, where `quantization` asks for them."""
    section = "quantization"
    bits = 4 if draft.flag(f"{section}.load_in_4bit") else 8 if draft.flag(f"{section}.load_in_8bit") else None
    if bits is None:
        return
    others = [f"{section}.bnb_4bit_quant_type", f"{section}.bnb_4bit_use_double_quant"]
    kind, double = draft.text(others[0]), draft.flag(others[1], default=True)
    quantise(draft, f"{section}.load_in_{bits}bit", bits, kind=kind, double=double, others=others)


def _model_key(draft: Draft) -> str | None:
    keys = tuple(
        f"model.{name}" for name in ("pretrained_model_name_or_path", "config.pretrained_model_name_or_path", "config.name_or_path")
    )
    keys = (*keys, "model.config")
    return next((key for key in keys if key in draft.leaves and draft.has(key)), None)


def _dtype(draft: Draft) -> None:
    for key in ("model.dtype", "model.torch_dtype", "model.config.torch_dtype"):
        text = draft.text(key)
        if text is None:
            continue
        dtype = DTYPES.get(text.removeprefix("torch.").lower())
        if dtype is None:
            draft.took(key, "dropped", f"{text} is no type that weights are held in; the checkpoint's own is kept")
        elif "model.dtype" in draft.values:
            draft.took(key, "unneeded", "model.dtype says it already")
        else:
            draft.map(key, "model.dtype", dtype)


def remote_code(draft: Draft, key: str, *, first: bool) -> None:
    """`trust_remote_code`: kept where a recipe may have it (a local folder, a full commit), else left to the user."""
    if key not in draft.leaves:
        return
    if not draft.flag(key):
        draft.took(key, "unneeded", "is off by default")
    elif not first or "model.trust_remote_code" in draft.values:
        draft.took(key, "unneeded", "one setting serves model and processor")
    elif str(draft.values.get("model.id", "")).startswith("/") or len(str(draft.values.get("model.revision", ""))) == 40:
        draft.map(key, "model.trust_remote_code", True)
    else:
        why = "not set: transformers itself has most models. If this one needs its own code, look at it, then set model.revision to a full "
        draft.took(key, "manual", why + "commit and model.trust_remote_code: true")


def _processor(draft: Draft, model: str | None) -> None:
    """The image processor's settings go under `model:`; its own name must be the model's."""
    settings: dict[str, Any] = {}
    for section in ("processor", "tokenizer"):
        for key in draft.below(section):
            name = key.removeprefix(f"{section}.")
            if name == "pretrained_model_name_or_path":
                same = draft.text(key) == model
                why = (
                    "the model's own processor is used"
                    if same
                    else "the model's own processor is used; copy this one into the model's folder"
                )
                draft.took(key, "unneeded" if same else "manual", why)
            elif section == "processor" and name in ("min_pixels", "max_pixels"):
                draft.map(key, f"model.{name}", draft.whole(key))
            elif not any(row.covers(key) for row in draft.rows):
                settings[name] = draft.get(key)
                draft.took(key, "mapped", "handed to the image processor under its own name", ("model.processor",))
    if settings:
        draft.values["model.processor"] = settings
        draft.comments["model.processor"] = f"processor: {', '.join(settings)}"


def build_tuning(draft: Draft, *, speech: bool) -> None:
    """`tuning:` from `peft` and `freeze_config`: which parts are trained, and how. `speech`: the data is sound alone."""
    towers = towers_of(str(draft.values.get("model.id", "")))
    frozen = _frozen(draft, towers, speech=speech)
    if not draft.has("peft"):
        draft.map("(no peft)", "tuning.type", "full", "all weights of the parts are trained")
        parts = [part for part in _PARTS if part not in frozen]
        if "embeddings" in frozen and "head" in parts:
            # With one tied weight, a trained head would train the embeddings, which the source keeps as they are.
            parts.remove("head")
            draft.took(
                "freeze_config.freeze_embeddings", "changed",
                "the head is often the same weight, so it stays frozen too; if this model's is not tied, add head to tuning.parts",
            )  # fmt: skip
        _parts(draft, parts, frozen, "(freeze_config)", towers)
        return
    draft.map("peft._target_" if draft.has("peft._target_") else "(peft)", "tuning.type", "lora")
    adapted = _adapted(draft, towers)
    draft.took("freeze_config.freeze_embeddings", "unneeded", "adapters leave the embeddings as they are")
    _parts(draft, [part for part in _PARTS if part in adapted - frozen], set(), "(peft)", towers)
    draft.map("peft.dim" if draft.has("peft.dim") else "(peft.dim)", "tuning.rank", draft.whole("peft.dim") or 8)
    draft.map("peft.alpha" if draft.has("peft.alpha") else "(peft.alpha)", "tuning.alpha", draft.number("peft.alpha") or 32)
    if draft.flag("peft.use_dora"):
        draft.map("peft.use_dora", "tuning.dora", True)
    dropout = draft.number("peft.dropout")
    if dropout:
        before = draft.get("peft.dropout_position") == "pre"
        why = "" if before else "applied to the adapters' input; Automodel's default is their output"
        draft.map("peft.dropout", "tuning.dropout", dropout, why, "mapped" if before else "changed")
    elif dropout is not None:
        draft.took("peft.dropout", "mapped", "no dropout is the default", ("tuning.dropout",))


def _parts(draft: Draft, parts: list[str], frozen: set[str], origin: str, towers: Towers) -> None:
    if not parts:
        draft.map(origin, "tuning.parts", ["language"], "the source trains nothing; name what is to be trained", "manual")
        return
    why = "" if towers.known else "this family's module names are not known here: compare with the parts table of `foveate check`"
    draft.map(origin, "tuning.parts", parts, why, "mapped" if towers.known else "manual")
    if towers.known:
        draft.comments["tuning.parts"] = "from peft and freeze_config" if draft.has("peft") else "all but what freeze_config names"
    kept = [part for part in _PARTS if part in frozen and part not in parts]
    if kept:
        draft.values["tuning.freeze"] = kept


def _frozen(draft: Draft, towers: Towers, *, speech: bool) -> set[str]:
    """The parts that `freeze_config` keeps as they are."""
    section = "freeze_config"
    selected = draft.has(f"{section}.freeze_modules") or draft.has(f"{section}.unfreeze_modules")
    vision = draft.flag(f"{section}.freeze_vision_tower", default=draft.has(section) and not selected)
    audio = draft.flag(f"{section}.freeze_audio_tower")
    frozen = set()
    if vision and speech and not audio:
        why = "the sound tower, which is trained here, counts as vision; the picture tower gets no gradient from sound alone"
        draft.took(f"{section}.freeze_vision_tower", "changed", why, ("tuning.parts",))
    elif vision:
        frozen.add("vision")
    if vision and any(word in name for name in towers.projector for word in _VISION_WORDS):
        frozen.add("projector")
    for name in ("freeze_vision_tower", "freeze_language_model", "freeze_embeddings"):
        if f"{section}.{name}" in draft.leaves and f"{section}.{name}" not in draft.notes:
            draft.took(f"{section}.{name}", "mapped", "", ("tuning.parts",))
    if f"{section}.freeze_audio_tower" in draft.leaves:
        same = audio == vision or speech
        why = "" if same else "sound towers count as vision: they are trained or frozen together with it"
        draft.took(f"{section}.freeze_audio_tower", "mapped" if same else "changed", why, ("tuning.parts",))
    if draft.flag(f"{section}.freeze_language_model"):
        frozen |= {"language", "embeddings"}
    if draft.flag(f"{section}.freeze_embeddings"):
        frozen.add("embeddings")
    for key, change in ((f"{section}.freeze_modules", frozen.update), (f"{section}.unfreeze_modules", frozen.difference_update)):
        if draft.has(key):
            change(_selected(draft, key))
    return frozen


def _selected(draft: Draft, key: str) -> set[str]:
    """The parts that module selectors (`{path: ...}` or `{glob: ...}`) mean, as far as they mean whole parts."""
    words = {
        "projector": ("projector", "merger", "connector"), "vision": (*_VISION_WORDS, *_AUDIO_WORDS), "head": ("lm_head",),
        "embeddings": ("embed_tokens",), "language": ("language_model", "model.layers"),
    }  # fmt: skip
    found, odd = set(), []
    for entry in draft.get(key) if isinstance(draft.get(key), list) else [draft.get(key)]:
        text = str(next(iter(entry.values()), "")) if isinstance(entry, dict) else str(entry)
        part = next((part for part, names in words.items() if any(name in text for name in names)), None)
        if part is None or any(character.isdigit() for character in text):
            odd.append(text)
        else:
            found.add(part)
    if odd:
        draft.took(key, "manual", f"read as parts alone; where {', '.join(odd)} lies in a trained part, name it in tuning.exclude")
    else:
        draft.took(key, "mapped", "read as whole parts", ("tuning.parts",))
    return found


def _adapted(draft: Draft, towers: Towers) -> set[str]:
    """The parts whose linear layers get adapters; `tuning.targets` where only some of them do."""
    named = {
        "vision": towers.vision,
        "projector": towers.projector if towers.linear else (),
        "language": towers.language,
        "head": ("lm_head",),
    }
    targets, excluded = draft.names("peft.target_modules"), draft.names("peft.exclude_modules")
    if draft.flag("peft.match_all_linear"):
        draft.took("peft.match_all_linear", "mapped", "all linear layers of the parts", ("tuning.parts",))
        return {part for part, names in named.items() if names}
    draft.took("peft.match_all_linear", "mapped", "", ("tuning.parts",))
    if excluded and not targets:
        odd = [pattern for pattern in excluded if not any(word in pattern for word in _TOWER_WORDS)]
        left = [pattern for pattern in odd if touched([pattern], towers.language)]
        draft.map("peft.exclude_modules", "tuning.exclude", left or None)
        odd = [pattern for pattern in odd if pattern not in left]
        why = f"{', '.join(odd)} names no linear layer that is known here; tuning.exclude leaves layers out" if odd else ""
        draft.took("peft.exclude_modules", "changed" if odd else "mapped", why, ("tuning.parts",))
        return {part for part, names in named.items() if not all(touched(excluded, [name]) for name in names)}
    key = "peft.target_modules" if targets else "(peft.target_modules)"
    targets = targets or ["*_proj"]
    # NeMo's own models keep the language layers at model.layers; in transformers they lie deeper.
    patterns = [f"*.{pattern.removeprefix('model.')}" if pattern.startswith("model.layers") else pattern for pattern in targets]
    why = "" if patterns == targets else "written for transformers' module names"
    draft.map(key, "tuning.targets", patterns, why, "mapped" if patterns == targets else "changed")
    return {part for part, names in named.items() if touched(patterns, names)} or {"language"}
