"""The model, its precision, and what is trained."""

from __future__ import annotations

from pathlib import Path

from foveate.errors import FoveateError
from foveate.migrate.draft import Draft
from foveate.migrate.options import looks_local, placed
from foveate.migrate.quantize import quantise

_PARTS = ("vision", "projector", "language", "embeddings", "head")
# Modules that `additional_target` trains in full -> the part that they are.
_WHOLE = {
    "embed_tokens": "embeddings", "lm_head": "head", "multi_modal_projector": "projector", "merger": "projector", "connector": "projector",
    "vision_tower": "vision", "visual": "vision",
}  # fmt: skip
_NO_METHOD = "has no counterpart; {} takes its place"


def build_model(draft: Draft, base: Path) -> None:
    """`model:` and the precision that it is trained in."""
    name = draft.text("model_name_or_path")
    if name is None:
        draft.map("(model_name_or_path)", "model.id", "model/id", "name the base model", "manual")
    else:
        draft.map("model_name_or_path", "model.id", placed(name, base) if looks_local(name) else name)
    revision = draft.text("model_revision")
    if revision not in (None, "main"):
        draft.map("model_revision", "model.revision", revision)
    else:
        draft.took("model_revision", "unneeded", "main is the default")
    _remote_code(draft)
    _precision(draft)
    _quantize(draft)
    _tokens(draft)
    # Off only when said: LLaMA-Factory recomputes activations by default.
    off = draft.flag("disable_gradient_checkpointing")
    key = "disable_gradient_checkpointing" if "disable_gradient_checkpointing" in draft.leaves else "(disable_gradient_checkpointing)"
    draft.map(key, "train.gradient_checkpointing", "none" if off else "full")
    draft.took("gradient_checkpointing", "unneeded", "LLaMA-Factory goes by disable_gradient_checkpointing")


def _quantize(draft: Draft) -> None:
    """4 or 8 bits by bitsandbytes; the other methods and numbers have no counterpart."""
    keys = ("quantization_bit", "quantization_type", "quantization_method", "double_quantization")
    bits, method = draft.whole("quantization_bit"), (draft.text("quantization_method") or "bnb").lower()
    if bits is None:
        for key in keys[1:]:
            draft.took(key, "unneeded", "has no effect without quantization_bit")
        return
    if bits not in (4, 8) or method not in ("bnb", "bitsandbytes"):
        draft.took("quantization_bit", "dropped", f"{bits} bits by {method} have no counterpart: 4 or 8 by bitsandbytes, 8 by torchao")
        return
    kind, double = draft.text("quantization_type"), draft.flag("double_quantization", default=True)
    quantise(draft, "quantization_bit", bits, kind=kind, double=double, others=keys[1:])


def _tokens(draft: Draft) -> None:
    for key in ("add_tokens", "add_special_tokens"):
        draft.map(key, f"model.{key}", draft.names(key) or None)


def _remote_code(draft: Draft) -> None:
    key = "trust_remote_code"
    if key not in draft.leaves:
        return
    if not draft.flag(key):
        draft.took(key, "unneeded", "is off by default")
    elif str(draft.values.get("model.id", "")).startswith("/") or len(str(draft.values.get("model.revision", ""))) == 40:
        draft.map(key, "model.trust_remote_code", True)
    else:
        why = "not set: transformers itself has most models. If this one needs its own code, look at it, then set model.revision to a full "
        draft.took(key, "manual", why + "commit and model.trust_remote_code: true")


def _precision(draft: Draft) -> None:
    """LLaMA-Factory holds frozen weights in the compute type and trained ones in float32, unless `pure_bf16`."""
    pure, bf16, fp16 = draft.flag("pure_bf16"), draft.flag("bf16"), draft.flag("fp16")
    full = (draft.text("finetuning_type") or "lora") != "lora"
    key = "pure_bf16" if pure else "bf16" if bf16 else "fp16" if fp16 else "(bf16)"
    if fp16:
        draft.map(key, "train.precision", "auto", "there is no float16 training: bfloat16 where the device has it", "changed")
    else:
        draft.map(key, "train.precision", "bfloat16" if pure or bf16 else "float32")
    held = "float32" if not (pure or bf16) or (full and not pure) else "bfloat16"
    why = "trained weights are held in float32 there; the frozen ones too here" if full and bf16 and not pure else ""
    draft.map(key, "model.dtype", held, why, "changed" if fp16 else "mapped")
    for name in ("bf16", "fp16", "pure_bf16"):
        if name in draft.leaves and name not in draft.notes:
            draft.took(name, "unneeded", "train.precision says it")


def build_tuning(draft: Draft) -> None:
    """`tuning:`. Frozen parts are what the freeze_ flags say; by default only the language part is trained."""
    kind = draft.text("finetuning_type") or "lora"
    origin = "finetuning_type" if draft.has("finetuning_type") else "(finetuning_type)"
    if kind not in ("full", "lora", "freeze", "oft"):
        raise FoveateError(f"finetuning_type {kind!r} is unknown", where=str(draft.foreign.path), fix="write full, lora, freeze or oft")
    frozen = set()
    flags = {"freeze_vision_tower": "vision", "freeze_multi_modal_projector": "projector", "freeze_language_model": "language"}
    for flag, part in flags.items():
        if draft.flag(flag, default=part != "language"):
            frozen.add(part)
        if flag in draft.leaves:
            draft.took(flag, "mapped", "", ("tuning.parts",))
    if draft.flag("train_mm_proj_only"):
        frozen = {"vision", "language"}
        draft.took("train_mm_proj_only", "mapped", "", ("tuning.parts",))
    if "language" in frozen:
        frozen |= {"embeddings", "head"}
    if kind in ("lora", "oft"):
        why = _NO_METHOD.format("LoRA") if kind == "oft" else ""
        draft.map(origin, "tuning.type", "lora", why, "manual" if kind == "oft" else "mapped")
        _lora(draft, [part for part in ("vision", "projector", "language") if part not in frozen])
        return
    why = "trains some layers only, for which there is no counterpart; all layers of the parts are trained" if kind == "freeze" else ""
    draft.map(origin, "tuning.type", "full", why, "manual" if kind == "freeze" else "mapped")
    _parts(draft, [part for part in _PARTS if part not in frozen])


def _parts(draft: Draft, parts: list[str]) -> None:
    if parts:
        draft.values["tuning.parts"] = parts
        draft.comments["tuning.parts"] = "all but what the freeze_ settings, or their defaults, keep"
    else:
        draft.map("(finetuning_type)", "tuning.parts", ["language"], "the source freezes everything; name what is to be trained", "manual")


def _lora(draft: Draft, parts: list[str]) -> None:
    _parts(draft, parts)
    rank = draft.whole("lora_rank") or 8
    draft.map("lora_rank" if draft.has("lora_rank") else "(lora_rank)", "tuning.rank", rank)
    alpha = draft.number("lora_alpha")
    origin, scale = ("lora_alpha", alpha) if alpha else ("(lora_alpha)", 2.0 * rank)
    draft.map(origin, "tuning.alpha", scale)
    for key, to in (("use_rslora", "tuning.rslora"), ("use_dora", "tuning.dora")):
        if draft.flag(key):
            draft.map(key, to, True)
        else:
            draft.took(key, "unneeded", "is off by default")
    draft.map("lora_dropout", "tuning.dropout", draft.number("lora_dropout"))
    targets = draft.names("lora_target") or ["all"]
    if targets == ["all"]:
        draft.took("lora_target", "mapped", "all linear layers of the parts, the default", ("tuning.parts",))
    else:
        draft.map("lora_target", "tuning.targets", targets)
    whole = draft.names("additional_target")
    if not whole:
        return
    found = list(dict.fromkeys(_WHOLE[name.rpartition(".")[2]] for name in whole if name.rpartition(".")[2] in _WHOLE))
    also = [part for part in found if part not in draft.values["tuning.parts"]]
    odd = [name for name in whole if name.rpartition(".")[2] not in _WHOLE]
    draft.map("additional_target", "tuning.also_full", also or None)
    draft.map("additional_target", "tuning.modules_to_save", odd or None)
