"""Mistral's models with Pixtral's tower."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, Build, llama, tokenizer

_TOKENS = ("<pad>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
_PIXTRAL = dict(
    model_type="pixtral",
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    head_dim=16,
    image_size=64,
    patch_size=8,
)
_CONTENT = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{{ '[IMG]' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}"
)
# Questions stand between [INST] and [/INST], answers between that and </s>: there is no generation prompt.
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}[INST]" + _CONTENT + "[/INST]"
    "{% elif message['role'] == 'system' %}[SYSTEM_PROMPT]" + _CONTENT + "[/SYSTEM_PROMPT]"
    "{% elif message['role'] == 'assistant' %}" + _CONTENT + "{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user, system and assistant roles are known') }}{% endif %}{% endfor %}"
)


def _processor() -> Any:
    """Pixtral's: an image of any shape is a grid of tokens, with a break after each row."""
    import transformers as hf

    tok = tokenizer(_TOKENS, eos="</s>", pad="<pad>", bos="<s>")
    images = hf.PixtralImageProcessor(size={"longest_edge": 64}, patch_size={"height": 16, "width": 16})
    return hf.PixtralProcessor(images, tok, patch_size=8, spatial_merge_size=2, chat_template=MISTRAL_TEMPLATE)


def _mistral3() -> tuple[Any, Any, Any]:
    import transformers as hf

    processor = _processor()
    tok = processor.tokenizer
    config = hf.Mistral3Config(
        image_token_index=processor.image_token_id,
        spatial_merge_size=2,
        vision_feature_layer=-1,
        vision_config=dict(_PIXTRAL),
        text_config={**llama(tok), "model_type": "mistral", "head_dim": 32},
    )
    return hf.Mistral3ForConditionalGeneration, config, processor


def _mistral_large4() -> tuple[Any, Any, Any]:
    """Latent attention with an indexer that keeps the best keys, experts after a dense layer."""
    import transformers as hf

    processor = _processor()
    tok = processor.tokenizer
    config = hf.MistralLarge4Config(
        image_token_index=processor.image_token_id,
        spatial_merge_size=2,
        vision_config=dict(_PIXTRAL),
        text_config=dict(
            **{**TEXT, "num_key_value_heads": 4},
            vocab_size=len(tok),
            bos_token_id=tok.bos_token_id,
            eos_token_id=tok.eos_token_id,
            pad_token_id=tok.pad_token_id,
            moe_intermediate_size=64,
            n_routed_experts=4,
            num_experts_per_tok=2,
            kv_lora_rank=32,
            qk_rope_head_dim=16,
            qk_nope_head_dim=16,
            v_head_dim=32,
            index_topk=2048,
            index_head_dim=32,
            index_n_heads=2,
            no_rope_layers=[1, 0],
        ),
    )
    return hf.MistralLarge4ForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"mistral3": _mistral3, "mistral_large4": _mistral_large4}
