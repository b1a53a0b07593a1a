"""`dataset`, `validation_dataset` and `dataloader`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from foveate.migrate.datasets import entry_of, read_info
from foveate.migrate.draft import Draft
from foveate.migrate.options import Options, looks_local, placed

# Automodel's function -> the set's name, and where the function loads it from when the recipe does not say.
SETS = {
    "make_medpix_dataset": ("medpix", "mmoukouba/MedPix-VQA"),
    "make_cord_v2_dataset": ("cord_v2", "naver-clova-ix/cord-v2"),
    "make_cv17_dataset": ("common_voice_17", "ysdede/commonvoice_17_tr_fixed"),
    "make_rdr_dataset": ("rdr_items", "quintend/rdr-items"),
    "make_unimm_chat_dataset": ("unimm_chat", "Yirany/UniMM-Chat"),
    "make_shopify_product_catalogue_dataset": ("product_catalogue", "Shopify/product-catalogue"),
    "make_llava_onevision_dataset": ("llava_instruct", "liuhaotian/LLaVA-Instruct-150K"),
    "make_tulu3_dataset": ("tulu3", "allenai/tulu-3-sft-mixture"),
}
_SPEECH = ("make_cv17_dataset", "make_hf_audio_asr_dataset", "make_multi_en_asr_dataset")
_MOCK = "made-up data can't be had; name data of your own"
PLACEHOLDER = "your_data.jsonl"


def is_speech(draft: Draft) -> bool:
    """True when the training data is recordings and their text."""
    return _function(draft, "dataset") in _SPEECH


def build_data(draft: Draft, options: Options) -> None:
    """`data:` with its sources, and the workers."""
    if not draft.has("dataset") and isinstance(draft.get("dataloader.dataset"), dict):
        sections = {"train": ["dataloader.dataset"]}
    else:
        sections = {"train": ["dataset"]}
    sections["eval"] = [key for key in draft.foreign.tree if key.startswith("validation_dataset") and draft.has(key)]
    for split, keys in sections.items():
        sources, origins = [], []
        for key in keys:
            for source in _sources(draft, key, options):
                sources.append(source)
                origins.append(f"{key}: {_function(draft, key) or draft.get(f'{key}._target_')}")
        if sources:
            draft.values[f"data.{split}"] = sources
            for number, origin in enumerate(origins):
                draft.comments[f"data.{split}.{number}.{next(iter(sources[number]))}"] = origin
    if draft.values.get("data.eval"):
        draft.map("(validation_dataset)", "evaluate.metrics", ["loss"], "Automodel measures the loss alone")
    for key in ("dataloader.collate_fn._target_", "validation_dataloader.collate_fn._target_"):
        if draft.has(key) and not str(draft.get(key)).startswith("nemo_automodel."):
            why = "a function of your own: what it does to texts goes into an `adapter:`, and data.collate takes (conversations, processor)"
            draft.took(key, "manual", why)
    for key in [key for key in draft.leaves if key.endswith("dataloader.shuffle") and draft.flag(key)]:
        draft.took(key, "unneeded", "records are always shuffled, anew in each epoch")
    workers = draft.whole("dataloader.num_workers", least=0)
    if workers is not None:
        draft.map("dataloader.num_workers", "data.workers", workers)


def _function(draft: Draft, section: str) -> str:
    return str(draft.get(f"{section}._target_", "")).rpartition(".")[2].rpartition(":")[2]


def _sources(draft: Draft, section: str, options: Options) -> list[dict[str, Any]]:
    function, target = _function(draft, section), f"{section}._target_"
    if function in SETS:
        sources = [_named(draft, section, function, options.base)]
    elif function == "make_meta_dataset":
        sources = _meta(draft, section, options)
    elif function == "make_hf_audio_asr_dataset":
        sources = [_speech(draft, section, options.base)]
    elif function == "make_tulu3_magicoder_text_mix_dataset":
        sources = _text_mix(draft, section)
    elif "mock" in function:
        for key in draft.below(section):
            draft.took(key, "manual" if key == target else "unneeded", _MOCK if key == target else "describes the made-up data")
        sources = [{"path": PLACEHOLDER}]
    else:
        sources = [_unknown(draft, section, target, options.base)]
    limit = draft.whole(f"{section}.limit_dataset_samples")
    if limit is not None:
        for source in sources:
            source["limit"] = limit
        draft.took(f"{section}.limit_dataset_samples", "mapped", "", (_to(section, "limit"),))
    return sources


def _to(section: str, field: str) -> str:
    return f"data.{'eval' if section.startswith('validation') else 'train'}.*.{field}"


def _named(draft: Draft, section: str, function: str, base: Path) -> dict[str, Any]:
    """A set that has a name here too; from elsewhere when `path_or_dataset` says so."""
    name, home = SETS[function]
    source: dict[str, Any] = {"use": name}
    draft.took(f"{section}._target_", "mapped", "", (_to(section, "use"),))
    place = draft.text(f"{section}.path_or_dataset")
    if place is not None and place != home:
        local = looks_local(place)
        source["path" if local else "hub"] = placed(place, base) if local else place
    draft.took(f"{section}.path_or_dataset", "mapped", "" if place != home else "the set's own place", (_to(section, "use"),))
    source["split"] = draft.text(f"{section}.split") or "train"
    draft.took(f"{section}.split", "mapped", "", (_to(section, "split"),))
    columns = {}
    for key, role in (("audio_column", "audio"), ("text_column", "transcription")):
        column = draft.text(f"{section}.{key}")
        columns |= {role: column} if column is not None else {}
        draft.took(f"{section}.{key}", "mapped", "", (_to(section, "columns"),))
    if any(column != role for role, column in columns.items()):
        # A named set brings its own columns; with others it is any set of recordings.
        place = {key: source[key] for key in ("path", "hub") if key in source} or {"hub": home}
        source = {**place, "split": source["split"], "format": "asr", "columns": columns}
    return source


def _meta(draft: Draft, section: str, options: Options) -> list[dict[str, Any]]:
    """Entries of a meta file, LLaMA-Factory's dataset_info.json with `media_dir` and `sample_ratio`."""
    key = f"{section}.path_or_dataset"
    path = options.dataset_info or Path(os.path.expanduser(str(draft.get(key, ""))))
    infos = read_info(path)
    names = draft.texts(f"{section}.dataset_names") or sorted(infos)
    sources = []
    for name in names:
        info = {"formatting": "sharegpt", **infos[name]} if name in infos else {}
        entry = entry_of({**infos, name: info} if info else infos, name, path, options.base)
        sources.append(entry.source)
        for inner, state, why in entry.notes:
            if state != "mapped":
                draft.took(f"({name}.{inner})", state, why)
    for inner in ("_target_", "path_or_dataset", "dataset_names"):
        draft.took(f"{section}.{inner}", "mapped", "", (_to(section, "path"),))
    draft.took(f"{section}.split", "unneeded", "a meta file has no splits")
    return sources


def _speech(draft: Draft, section: str, base: Path) -> dict[str, Any]:
    """Any hub data set of recordings."""
    place = draft.text(f"{section}.path_or_dataset") or PLACEHOLDER
    local = looks_local(place)
    source: dict[str, Any] = {"path" if local else "hub": placed(place, base) if local else place}
    fields = {"name": "name", "split": "split", "user_prompt": "prompt", "system_prompt": "system"}
    for key, field in fields.items():
        text = draft.text(f"{section}.{key}")
        if text is not None:
            source[field] = text
            draft.took(f"{section}.{key}", "mapped", "", (_to(section, field),))
    source |= {"split": source.get("split", "train"), "format": "asr"}
    columns = {"audio": draft.text(f"{section}.audio_column") or "audio", "transcription": draft.text(f"{section}.text_column") or "text"}
    source["columns"] = columns
    for key in ("_target_", "path_or_dataset", "audio_column", "text_column"):
        draft.took(f"{section}.{key}", "mapped", "", (_to(section, "columns"),))
    return source


def _text_mix(draft: Draft, section: str) -> list[dict[str, Any]]:
    """Tulu 3 and Magicoder, four to one."""
    magicoder: dict[str, Any] = {
        "hub": "ise-uiuc/Magicoder-OSS-Instruct-75K", "split": draft.text(f"{section}.magicoder_split") or "train", "format": "qa",
        "columns": {"question": "problem", "answer": "solution"},
    }  # fmt: skip
    sources: list[dict[str, Any]] = [{"use": "tulu3", "split": draft.text(f"{section}.tulu_split") or "train"}, magicoder]
    total = draft.whole(f"{section}.limit_total")
    if total is not None:
        for source, share in zip(sources, (0.8, 0.2), strict=True):
            source["count"] = max(1, round(total * share))
        draft.took(f"{section}.limit_total", "mapped", "four parts to one", (_to(section, "count"),))
    why = "interleaved four to one until a source runs out there; here each source is read whole, set `count` or `weight` for other shares"
    draft.took(f"{section}._target_", "changed", why, (_to(section, "use"),))
    for key in ("tulu_split", "magicoder_split"):
        draft.took(f"{section}.{key}", "mapped", "", (_to(section, "split"),))
    return sources


def _unknown(draft: Draft, section: str, target: str, base: Path) -> dict[str, Any]:
    """A function of the user's own, or of Automodel's that has no set here: the data, its format still to be said."""
    place = draft.text(f"{section}.path_or_dataset") or draft.text(f"{section}.dataset_name")
    function = draft.text(target)
    why = f"{function} is not known: the format is detected from the columns; if that fails, write `columns:` or an `adapter:`"
    draft.took(target, "manual", why if place else f"{why}; name the data", (_to(section, "path"),))
    if place is None:
        return {"path": PLACEHOLDER}
    local = looks_local(place)
    source: dict[str, Any] = {"path" if local else "hub": placed(place, base) if local else place}
    split = draft.text(f"{section}.split")
    if split is not None:
        source["split"] = split
    for key in ("path_or_dataset", "dataset_name", "split"):
        draft.took(f"{section}.{key}", "mapped", "", (_to(section, "path"),))
    return source
