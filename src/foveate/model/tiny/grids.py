"""Models whose processors give flat patches with each image's grid, and plain positions."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, Build, chatml, chatml_tokenizer, content, qwen2, tokenizer

_SIZE = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}


def _video_llama_3() -> tuple[Any, Any, Any]:
    """Frames of a clip are written one by one, each after its time. Leaving out patches that did not change is off: a clip's length
    would follow from its pixels."""
    import transformers as hf

    tok = chatml_tokenizer("<|image_pad|>", "<|video_pad|>")
    images, video = hf.VideoLlama3ImageProcessor(size=_SIZE), hf.VideoLlama3VideoProcessor(size=_SIZE, use_token_compression=False)
    ids = dict(image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"), video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"))
    config = hf.VideoLlama3Config(
        **ids,
        vision_config=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, patch_size=14),
        text_config=qwen2(tok),
    )
    template = chatml("<|image_pad|>\\n", "<|video_pad|>\\n")
    return hf.VideoLlama3ForConditionalGeneration, config, hf.VideoLlama3Processor(images, tok, video, chat_template=template)


def _exaone4_5() -> tuple[Any, Any, Any]:
    """One layer with a window and rotary positions, one without either."""
    import transformers as hf

    words = ("<vision>", "</vision>", "<|image_pad|>", "<|video_pad|>")
    roles = ("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]")
    tok = tokenizer(("[PAD]", "[BOS]", *roles, *words), eos="[|endofturn|]", pad="[PAD]", bos="[BOS]")
    template = (
        "{% for m in messages %}{{ '[|' + m['role'] + '|]\\n' }}"
        + content("<vision><|image_pad|></vision>", "<vision><|video_pad|></vision>")
        + "{{ '[|endofturn|]\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '[|assistant|]\\n' }}{% endif %}"
    )
    limits = dict(min_pixels=28 * 28, max_pixels=112 * 112)
    images, video = hf.Qwen2VLImageProcessor(**limits), hf.Qwen2VLVideoProcessor(**limits)
    vision = dict(depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4, num_key_value_heads=2)
    layers = dict(layer_types=["sliding_attention", "full_attention"], sliding_window=16, sliding_window_pattern=2)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=tok.eos_token_id)
    config = hf.Exaone4_5_Config(
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"),
        vision_config=dict(vision, patch_size=14, fullatt_block_indexes=[1], window_size=56),
        text_config=dict(model_type="exaone4", vocab_size=len(tok), **ids, **layers, **TEXT),
    )
    processor = hf.Exaone4_5_Processor(images, tok, video, chat_template=template)
    return hf.Exaone4_5_ForConditionalGeneration, config, processor


def _kimi_k25() -> tuple[Any, Any, Any]:
    """DeepSeek's compressed attention and experts. The template shows no clip: transformers 5.23 can't run one, as it looks for the tokens
    of each frame where four frames were averaged."""
    import transformers as hf

    media = ("<|media_begin|>", "<|media_content|>", "<|media_pad|>", "<|media_end|>", "<|kimi_k25_video_placeholder|>")
    roles = ("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>")
    tok = tokenizer(("[PAD]", "[BOS]", "[EOS]", *roles, *media), eos="<|im_end|>", pad="[PAD]", bos="[BOS]")
    template = (
        "{% for m in messages %}{{ '<|im_' + m['role'] + '|>' + m['role'] + '<|im_middle|>' }}"
        + content("<|media_begin|>image<|media_content|><|media_pad|><|media_end|>")
        + "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}"
    )
    size = {"max_height": 112, "max_width": 112}
    images, video = hf.Kimi_K25ImageProcessor(size=size, max_patches=64), hf.Kimi_K25VideoProcessor(size=size, max_patches=64)
    heads = dict(q_lora_rank=32, kv_lora_rank=32, qk_rope_head_dim=16, qk_nope_head_dim=16, v_head_dim=32)
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, n_group=2, topk_group=1, moe_intermediate_size=64, first_k_dense_replace=1)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=tok.eos_token_id)
    text = dict(TEXT, num_key_value_heads=4)
    vision = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, pos_emb_height=8, pos_emb_width=8)
    config = hf.Kimi_K25Config(
        image_token_id=tok.convert_tokens_to_ids("<|media_pad|>"),
        video_token_id=tok.convert_tokens_to_ids("<|kimi_k25_video_placeholder|>"),
        vision_start_token_id=tok.convert_tokens_to_ids("<|media_begin|>"),
        vision_end_token_id=tok.convert_tokens_to_ids("<|media_end|>"),
        projection_hidden_size=64,
        vision_config=vision,
        text_config=dict(model_type="deepseek_v3", vocab_size=len(tok), **ids, **heads, **experts, **text),
    )
    return hf.Kimi_K25ForConditionalGeneration, config, hf.Kimi_K25Processor(images, tok, video, chat_template=template)


def _minimax_m3_vl() -> tuple[Any, Any, Any]:
    """One full layer and dense, one that looks at chosen blocks of 8 keys and has experts."""
    import transformers as hf

    words = ("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>[")
    tok = tokenizer(("[PAD]", "]~!b[", "]~b]", "[e~[", *words), eos="[e~[", pad="[PAD]", bos="]~!b[")
    template = (
        "]~!b[{% for m in messages %}{{ ']~b]' + ('ai' if m['role'] == 'assistant' else m['role']) + '\\n' }}"
        + content("]<]image[>[", "]<]video[>[")
        + "{{ '[e~[\\n' }}{% endfor %}{% if add_generation_prompt %}{{ ']~b]ai\\n' }}{% endif %}"
    )
    images, video = hf.MiniMaxM3VLImageProcessor(size=_SIZE), hf.MiniMaxM3VLVideoProcessor(min_pixels=28 * 28, max_pixels=112 * 112)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=tok.eos_token_id)
    chosen = dict(index_n_heads=2, index_head_dim=16, index_block_size=8, index_topk_blocks=2)
    layers = dict(layer_types=["full_attention", "minimax_m3_sparse"], mlp_layer_types=["dense", "sparse"])
    experts = dict(num_local_experts=4, num_experts_per_tok=2, dense_intermediate_size=256, shared_intermediate_size=64)
    text = dict(TEXT, intermediate_size=64, head_dim=32, rotary_dim=16)
    vision = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=112)
    config = hf.MiniMaxM3VLConfig(
        image_token_index=tok.convert_tokens_to_ids(words[0]),
        video_token_index=tok.convert_tokens_to_ids(words[1]),
        projector_hidden_size=128,
        vision_config=vision,
        text_config=dict(vocab_size=len(tok), **ids, **chosen, **layers, **experts, **text),
    )
    processor = hf.MiniMaxM3VLProcessor(images, tok, video, chat_template=template)
    return hf.MiniMaxM3SparseForConditionalGeneration, config, processor


def _hyperclovax_vision_v2() -> tuple[Any, Any, Any]:
    import transformers as hf

    words = ("<|image_start|>", "<|image_pad|>", "<|image_end|>", "<|video_start|>", "<|video_pad|>", "<|video_end|>")
    tok = chatml_tokenizer(*words)
    limits = dict(min_pixels=28 * 28, max_pixels=112 * 112)
    images, video = hf.Qwen2VLImageProcessor(**limits), hf.Qwen2VLVideoProcessor(**limits)
    vision = dict(depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4, patch_size=14)
    config = hf.HyperCLOVAXVisionV2Config(
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"),
        vision_config=dict(vision, model_type="qwen2_5_vl_vision", fullatt_block_indexes=[1], window_size=56),
        text_config=dict(qwen2(tok), model_type="hyperclovax"),
    )
    template = chatml("<|image_start|><|image_pad|><|image_end|>", "<|video_start|><|video_pad|><|video_end|>")
    processor = hf.HyperCLOVAXVisionV2Processor(images, tok, video, chat_template=template)
    return hf.HyperCLOVAXVisionV2ForConditionalGeneration, config, processor


def _dots3_note() -> tuple[Any, Any, Any]:
    """A layer with a window, one of compressed attention to chosen keys and of experts; it sees and hears, 4 s of sound at a time."""
    import transformers as hf

    media = ("<|img|>", "<|imgpad|>", "<|endofimg|>", "<|video_pad|>", "<|audio_comp_start|>", "<|audio_comp_pad|>", "<|audio_comp_end|>")
    roles = ("<|system|>", "<|user|>", "<|assistant|>", "<|endofsystem|>", "<|endofuser|>", "<|endofassistant|>")
    tok = tokenizer(("[PAD]", *roles, *media), eos="<|endofassistant|>", pad="[PAD]")
    template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
        + content(
            "<|img|><|imgpad|><|endofimg|>", "<|img|><|video_pad|><|endofimg|>", "<|audio_comp_start|><|audio_comp_pad|><|audio_comp_end|>"
        )
        + "{{ '<|endof' + m['role'] + '|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    limits = dict(min_pixels=28 * 28, max_pixels=112 * 112)
    images, video = hf.Qwen2VLImageProcessor(**limits, temporal_patch_size=1), hf.Qwen2VLVideoProcessor(**limits, temporal_patch_size=1)
    features = hf.Dots3NoteFeatureExtractor(feature_size=32, chunk_length=4)
    heads = dict(q_lora_rank=32, kv_lora_rank=32, qk_rope_head_dim=16, qk_nope_head_dim=16, head_dim=32, v_head_dim=32)
    window = {f"swa_{name}": value for name, value in heads.items()} | dict(swa_num_attention_heads=4, swa_num_key_value_heads=4)
    layers = dict(layer_types=["sliding_attention", "indexed_attention"], mlp_layer_types=["dense", "sparse"], sliding_window=16)
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, shared_experts_intermediate_size=64)
    chosen = dict(index_topk=256, index_head_dim=16, index_n_heads=2)
    text = dict(TEXT, num_key_value_heads=4, vocab_size=len(tok), pad_token_id=0, bos_token_id=None, eos_token_id=tok.eos_token_id)
    vision = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, moe_intermediate_size=64)
    vision |= dict(mlp_layer_types=["dense", "sparse"], num_local_experts=4, num_experts_per_tok=2, adapter_in_dim=64, adapter_out_dim=128)
    sound = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=400)
    sound |= dict(feature_size=32, downsample_hidden_size=16, adapter_input_size=64, adapter_out_dim=128)
    names = dict(image_token_id="<|imgpad|>", video_token_id="<|video_pad|>", audio_token_id="<|audio_comp_pad|>")
    config = hf.Dots3NoteConfig(
        **{name: tok.convert_tokens_to_ids(word) for name, word in names.items()},
        vision_config=vision,
        audio_config=sound,
        text_config=text | heads | window | layers | experts | chosen,
    )
    processor = hf.Dots3NoteProcessor(images, tok, video, features, chat_template=template)
    return hf.Dots3NoteForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {
    "video_llama_3": _video_llama_3,
    "exaone4_5": _exaone4_5,
    "kimi_k25": _kimi_k25,
    "dots3_note": _dots3_note,
    "minimax_m3_vl": _minimax_m3_vl,
    "hyperclovax_vision_v2": _hyperclovax_vision_v2,
}
