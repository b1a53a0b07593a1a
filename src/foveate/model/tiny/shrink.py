"""Makes a real model's configuration tiny, and leaves what its processor and template depend on as it is.

Few layers, narrow ones, few heads and experts; vocabulary, token ids, patch and image sizes, merge sizes, sampling and positions stay.
Widths that must agree somewhere in the tree (a tower's output and the text's input) agree after it, for equal widths shrink
equally. Names decide, not families: transformers' configurations call the same things by the same few names. There are several ways,
the smallest first; which one a family can take shows when a model of it runs.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_WIDTH, _INNER, _HEADS, _HEAD_DIM, _MIXER_DIM, _RANK = 64, 128, 2, 32, 16, 32
_MOST_LISTED = 6  # layers kept because a list names them

_LAYERS = re.compile(
    r"(num_hidden_layers|num_layers|n_layers?|layers|depth|resampler_depth|num_blocks|num_global_layers"
    r"|(conf_num_hidden|num_)?(encoder|decoder|hidden)_layers|conf_num_hidden_layers)"
)
_INDEXES = re.compile(r".*(_indexes|_indices|_idxs|_layers?|_layer_ids?|idx)")
_TOWER_LAYER = re.compile(r"(vision_)?feature_layers?|spatial_vision_layer|spatial_target_layers")
_WIDTHS = re.compile(
    r".*(hidden_sizes?|hidden_dim|d_model|embed_dim|output_dim|projection_dim|projector_input_dim|projector_output_dim|word_embed_proj_dim"
    r"|out_channel|nemo_conv_channels|adapter_in_dim|adapter_out_dim|adapter_input_size)"
)
_INNERS = re.compile(r".*(intermediate_size|intermediate_size_mlp|ffn_dim|d_ff|mlp_dim|share_expert_dim)")
_KV_HEADS = re.compile(r".*(key_value_heads|kv_heads)")
_MIXER_HEADS = re.compile(r"linear_num_value_heads|mamba_num_heads")
_HEAD_COUNTS = re.compile(r".*_heads|heads|attention_heads|num_groups")
_MIXER_DIMS = re.compile(r"(linear_(key_|value_)?|mamba_)head_dim|ssm_state_size")
_HEAD_DIMS = re.compile(r".*head_dim|d_kv|dim_head|resampler_dim_head")
_RANKS = re.compile(r".*(_lora_rank|_rank|_lowrank)")
_EXPERTS = re.compile(r"(moe_)?num_(local_)?experts|n_routed_experts")
_CHOSEN = re.compile(r"num_experts_per_tok|moe_topk|moe_k|top_k_experts")
_ONE = re.compile(r"n_group|topk_group|first_k_dense_replace")
_NONE = re.compile(r"num_kv_shared_layers")
_GROUPS = re.compile(r"n_groups")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way of making a configuration tiny: `width` and `inner` map a layer's widths, None leaves all but the depth."""

    name: str
    width: Callable[[int], int] | None
    inner: Callable[[int], int] | None


def ways(config: PretrainedConfig) -> tuple[Way, ...]:
    """How `config` may be made tiny, the smallest result first. A family may refuse any of them: `shrunk`, then build and run a model.

    `narrow` has one width for all; `scaled` divides every width by the same number, where one must be a multiple of another;
    `shallow` cuts the depth alone.
    """
    factor = 2
    while config.get_text_config().to_dict().get("hidden_size", 0) // (2 * factor) >= 2 * _WIDTH:
        factor *= 2
    return (
        Way(name="narrow", width=lambda v: min(v, _WIDTH), inner=lambda v: min(v, _INNER)),
        Way(name="scaled", width=lambda v: _divided(v, factor), inner=lambda v: _divided(v, factor)),
        Way(name="shallow", width=None, inner=None),
    )


def shrunk(config: PretrainedConfig, way: Way) -> PretrainedConfig:
    """`config`, tiny; of its own class, which may refuse it. The original is not touched."""
    values = copy.deepcopy(config.to_dict())
    values.pop("quantization_config", None)  # its packed weights fit no tiny layer
    # What a configuration says of its towers' layers (`vision_feature_layer`) is meant for the tower of that name.
    return type(config).from_dict(_section(values, way, outer=_kept_of(values.get("vision_config"))))


def _section(values: dict[str, Any], way: Way, *, outer: tuple[int, ...] | None) -> dict[str, Any]:
    kept = _kept_of(values) or outer
    count = _depth(values)
    made: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            made[name] = _section(value, way, outer=outer) if _is_section(name, value) else _by_layer(value, count, kept)
        else:
            made[name] = _layered(name, value, count, kept, outer)
            if way.width is not None:
                made[name] = _narrowed(name, made[name], values, way)
    if way.width is not None:
        _fit_heads(values, made)
    return made


def _is_section(name: str, value: dict[str, Any]) -> bool:
    return "model_type" in value or (name.endswith("_config") and not all(str(key).isdigit() for key in value))


def _depth(values: dict[str, Any]) -> int | None:
    """Layers of a section, None where it has none."""
    names = [name for name, value in values.items() if _LAYERS.fullmatch(name) and _is_int(value)]
    first = next((name for name in ("num_hidden_layers", "depth", "encoder_layers") if name in names), None)
    return values[first or names[0]] if names else None


def _kept_of(values: dict[str, Any] | None) -> tuple[int, ...] | None:
    """The layers that are kept, ascending: one of each kind, those that a list names, at least two where there are two."""
    count = _depth(values or {})
    if not count:
        return None
    kept: set[int] = set()
    for name, value in (values or {}).items():
        if _per_layer(name, value, count):
            kinds = [str(item) for item in value]
            kept |= {kinds.index(kind) for kind in list(dict.fromkeys(kinds))[:_MOST_LISTED]} if len(set(kinds)) < count else set()
        elif _is_indexes(name, value, count):
            listed = [index for index in value if index >= 0]
            kept |= set(listed if len(listed) <= _MOST_LISTED else listed[:2])
    for extra in (0, count - 1):
        if len(kept) < 2:
            kept.add(extra)
    return tuple(sorted(kept))


def _per_layer(name: str, value: Any, count: int) -> bool:
    """Whether a value has an entry a layer: a list, or a pattern such as `M-M*`."""
    return len(value) == count > 2 if isinstance(value, list) or (isinstance(value, str) and name.endswith("pattern")) else False


def _is_indexes(name: str, value: Any, count: int) -> bool:
    whole = isinstance(value, list) and bool(value) and all(map(_is_int, value))
    return whole and _INDEXES.fullmatch(name) is not None and all(-count <= index < count for index in value)


def _layered(name: str, value: Any, count: int | None, kept: tuple[int, ...] | None, outer: tuple[int, ...] | None) -> Any:
    """A value with what it says of layers brought to those that are kept, `outer` being the tower's."""
    if _LAYERS.fullmatch(name) and _is_int(value):
        return min(value, len(kept)) if value == count and kept else min(value, 2)
    if name == "depths" and isinstance(value, list):
        return [1] * len(value)
    if _TOWER_LAYER.fullmatch(name) and outer:
        return [_place(index, outer) for index in value] if isinstance(value, list) else _place(value, outer) if _is_int(value) else value
    if kept is None:
        return value
    if count and _per_layer(name, value, count):
        chosen = [value[index] for index in kept]
        if _is_indexes(name, value, count) and max(value) > 1:  # the layer that each one takes something from
            return [_place(index, kept) for index in chosen]
        return "".join(chosen) if isinstance(value, str) else chosen
    most = count or 1 << 20
    if _is_indexes(name, value, most):
        placed = [_place(index, kept) for index in value if index < 0 or count is None or index in kept]
        return placed or [len(kept) - 1]
    return _place(value, kept) if _is_int(value) and name == "insert_layer_id" else value


def _by_layer(value: dict[Any, Any], count: int | None, kept: tuple[int, ...] | None) -> dict[Any, Any]:
    """A mapping whose keys are layers, brought to those that are kept; any other as it is."""
    if not count or not kept or not value or not all(str(key).isdigit() and int(key) < count for key in value):
        return value
    return {type(key)(kept.index(int(key))): item for key, item in value.items() if int(key) in kept}


def _place(index: int, kept: tuple[int, ...]) -> int:
    """Where a layer went; the nearest one that is kept stands for one that is not. Negative ones count from the end."""
    if index < 0:
        return max(index, -len(kept))
    return min(range(len(kept)), key=lambda place: abs(kept[place] - index))


def _narrowed(name: str, value: Any, values: dict[str, Any], way: Way) -> Any:
    if isinstance(value, list) and value and all(map(_is_int, value)):
        return [_narrowed(name, item, values, way) for item in value]
    if not _is_int(value) or value <= 0:
        return value
    for pattern, change in _CHANGES:
        if pattern.fullmatch(name):
            return change(value, values, way)
    return value


def _kv_heads(value: int, values: dict[str, Any], way: Way) -> int:
    """Groups stay groups: one key for several queries, where the family has that."""
    return 1 if any(_is_int(heads) and heads > value for name, heads in values.items() if name.endswith("num_attention_heads")) else _HEADS


def _head_dim(value: int, values: dict[str, Any], way: Way) -> int:
    rope = values.get("qk_rope_head_dim")
    if not rope:
        return min(value, _HEAD_DIM)
    # Latent attention: a head is a part without positions, of _HEAD_DIM, and one with, of half that.
    return {rope: _HEAD_DIM // 2, values.get("qk_head_dim"): _HEAD_DIM + _HEAD_DIM // 2}.get(value, _HEAD_DIM)


# Names -> what becomes of a value: the first that fits counts.
_CHANGES: tuple[tuple[re.Pattern[str], Callable[[int, dict[str, Any], Way], int]], ...] = (
    (_NONE, lambda value, values, way: 0),
    (_ONE, lambda value, values, way: 1),
    (_EXPERTS, lambda value, values, way: min(value, 4)),
    (_CHOSEN, lambda value, values, way: min(value, 2)),
    (_GROUPS, lambda value, values, way: min(value, _HEADS)),
    (_MIXER_HEADS, lambda value, values, way: min(value, 2 * _HEADS)),
    (_KV_HEADS, _kv_heads),
    (_MIXER_DIMS, lambda value, values, way: min(value, _MIXER_DIM)),
    (re.compile(r"qk_rope_head_dim"), lambda value, values, way: _HEAD_DIM // 2),
    (re.compile(r"qk_head_dim"), _head_dim),
    (re.compile(r"head_dim"), _head_dim),
    (_HEAD_DIMS, lambda value, values, way: min(value, _HEAD_DIM)),
    (_HEAD_COUNTS, lambda value, values, way: min(value, _HEADS)),
    (_RANKS, lambda value, values, way: min(value, _RANK)),
    (re.compile(r"hidden_size_per_layer_input"), lambda value, values, way: min(value, _MIXER_DIM)),
    (_WIDTHS, lambda value, values, way: way.width(value)),
    (_INNERS, lambda value, values, way: way.inner(value)),
)


def _fit_heads(values: dict[str, Any], made: dict[str, Any]) -> None:
    """Rotary sections and dimensions grow smaller with the heads that they divide; in place."""
    heads, width = values.get("num_attention_heads"), values.get("hidden_size")
    if not (_is_int(heads) and _is_int(width)):
        return
    if not values.get("head_dim") and made["hidden_size"] % (4 * made["num_attention_heads"]):
        # Rotary frequencies take a quarter of a head.
        made.update({name: 1 for name in ("num_attention_heads", "num_key_value_heads") if name in made})
    before = values.get("head_dim") or width // heads
    after = made.get("head_dim") or made["hidden_size"] // made["num_attention_heads"]
    if _is_int(values.get("rotary_dim")):
        made["rotary_dim"] = max(2, values["rotary_dim"] * after // before)
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(made.get(name), dict):
            made[name] = _with_sections(made[name], before, after)
    if isinstance(made.get("mrope_section"), list):
        made["mrope_section"] = _sections(made["mrope_section"], before, after)


def _with_sections(rope: dict[str, Any], before: int, after: int) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name, value in rope.items():
        if isinstance(value, dict):
            changed[name] = _with_sections(value, before, after)
        elif name == "mrope_section" and isinstance(value, list):
            changed[name] = _sections(value, before, after)
        elif name in ("short_factor", "long_factor") and isinstance(value, list):
            changed[name] = value[: max(1, len(value) * after // before)]
        else:
            changed[name] = value
    return changed


def _sections(sections: list[int], before: int, after: int) -> list[int]:
    """Shares of the rotary dimensions, in the same proportion, with the sum that the smaller head needs."""
    total = sum(sections) * after // before
    made = [max(1, size * after // before) for size in sections]
    made[0] += total - sum(made)
    return made


def _divided(value: int, factor: int) -> int:
    """A width over `factor`; where that leaves a rest or less than 16, the next multiple of 4 from 16 on."""
    exact, rest = divmod(value, factor)
    return value if value <= 16 else exact if exact >= 16 and not rest else max(16, -(-value // factor // 4) * 4)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
