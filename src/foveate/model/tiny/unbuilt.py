"""Families of transformers that have no tiny model here, with the reason; docs/families.md lists them."""

from __future__ import annotations

UNBUILT: dict[str, str] = {
    "qwen2_5_omni": "its class has no forward; Foveate takes the thinker out of its folder and trains that (`qwen2_5_omni_thinker`)",
    "qwen3_omni_moe": "its class has no forward; Foveate takes the thinker out of its folder and trains that (`qwen3_omni_moe_thinker`)",
    "diffusion_gemma": "it writes blocks of tokens by taking noise away, so it is not trained to predict the next token",
    "idefics": "its processor puts a conversation's images behind its last word, where no answer can see them (transformers 5.23)",
    "mistral4": "a language model without media (`Mistral4ForCausalLM`); what sees images is `mistral3` around it",
    "pi0": "it gives a robot's movements, not text: its forward asks for a state and noise, and its loss is that of flow matching",
    "shieldgemma2": (
        "its processor asks questions of its own about an image and drops the conversation's text; as a language model (Gemma 3) it is saved "
        "under names that transformers 5.23 does not find again"
    ),
}
