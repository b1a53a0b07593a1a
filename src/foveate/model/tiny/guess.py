"""The family of a hub model by its name: for a rehearsal where not even its configuration is at hand."""

from __future__ import annotations

import re

# Names on the hub, in lower case and without their owner -> model type. The first that fits counts, so variants stand before their base.
NAMES: tuple[tuple[str, str], ...] = (
    (r"smolvlm", "smolvlm"),
    (r"idefics3", "idefics3"),
    (r"idefics2", "idefics2"),
    (r"qwen2-?vl", "qwen2_vl"),
    (r"qwen2\.5-?vl", "qwen2_5_vl"),
    (r"qwen2\.5-?omni", "qwen2_5_omni"),
    (r"qwen3-?omni", "qwen3_omni_moe"),
    (r"qwen3-?vl.*-a\d+b", "qwen3_vl_moe"),
    (r"qwen3-?vl", "qwen3_vl"),
    (r"qwen3\.5.*-a\d+b", "qwen3_5_moe"),
    (r"qwen3\.5", "qwen3_5"),
    (r"qwen2-?audio", "qwen2_audio"),
    (r"gemma-?3n", "gemma3n"),
    (r"gemma-?3-", "gemma3"),
    (r"gemma-?4-", "gemma4"),
    (r"paligemma", "paligemma"),
    (r"phi-?4-multimodal", "phi4_multimodal"),
    (r"llava-onevision", "llava_onevision"),
    (r"llava-next-video", "llava_next_video"),
    (r"llava-(v1\.6|next)", "llava_next"),
    (r"video-?llava", "video_llava"),
    (r"vip-?llava", "vipllava"),
    (r"(llava-(1\.5|v1\.5)|pixtral)", "llava"),
    (r"internvl", "internvl"),
    (r"mistral-small-3|mistral-medium-3", "mistral3"),
    (r"llama-4", "llama4"),
    (r"llama-3\.2.*vision", "mllama"),
    (r"voxtral-.*realtime", "voxtral_realtime"),
    (r"voxtral", "voxtral"),
    (r"granite-speech", "granite_speech"),
    (r"granite-vision-(3\.)", "llava_next"),
    (r"glm-4\.[56]v$|glm-4\.5v", "glm4v_moe"),
    (r"glm-4\.1v|glm-4v|glm-4\.6v-flash", "glm4v"),
    (r"kimi-k2\.5", "kimi_k25"),
    (r"ovis2", "ovis2"),
    (r"aya-vision", "aya_vision"),
    (r"command-a-vision", "cohere2_vision"),
    (r"molmo2", "molmo2"),
    (r"lfm2-?vl", "lfm2_vl"),
    (r"fastvlm", "fast_vlm"),
    (r"deepseek-vl.*hybrid|deepseek-vl-7b", "deepseek_vl_hybrid"),
    (r"deepseek-vl", "deepseek_vl"),
    (r"janus", "janus"),
    (r"florence-?2", "florence2"),
    (r"ernie-4\.5-vl", "ernie4_5_vl_moe"),
    (r"perception-lm", "perception_lm"),
    (r"got-ocr", "got_ocr2"),
    (r"aria", "aria"),
)


def family_named(hub_id: str) -> str | None:
    """The model type that a hub id's name tells, e.g. `Qwen/Qwen2.5-VL-3B-Instruct` -> `qwen2_5_vl`; None for an unknown name."""
    name = hub_id.rpartition("/")[2].lower()
    return next((family for pattern, family in NAMES if re.search(rf"(^|[^a-z]){pattern}" if pattern[0] != "(" else pattern, name)), None)
