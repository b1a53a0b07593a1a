"""Tiny random-weight models of the families that Foveate is tested on, with tokenizer, processor and a chat template like the stock one.

`build(name)` gives (model, processor) in under a second; `save(name, folder)` writes them as a Hugging Face folder. Weights are
the same on every call. Text is 128 wide and 2 layers deep; an image of 64x64 costs 4 to 32 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("smolvlm", "smolvlm_split", "qwen2_5_vl", "qwen3_vl", "gemma3", "llava_onevision", "qwen2_audio")
EXTRA_NAMES = ("paligemma", "idefics3", "llava", "internvl", "qwen2_vl")  # further processors that the encoder is tested on

_CORPUS = (
    "what color is the object? red green blue yellow circle square triangle",
    "how many objects are there? one two three four. The answer is yes, no.",
    "user: assistant: system: describe this image please, read the number aloud",
    "User: what is in the picture? Assistant: a red circle is left of a blue square.",
)
_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
_TEXT = dict(
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=2048,
)
_ROPE = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}


def _content(image: str = "", video: str = "", audio: str = "") -> str:
    """Jinja for one message's content, string or parts."""
    return (
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}" + image + "{% elif c['type'] == 'video' %}" + video + "{% elif c['type'] == 'audio' %}" + audio + ""
        "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    )


def chatml(image: str = "", video: str = "", audio: str = "", newline: str = "\\n") -> str:
    """The ChatML template of Qwen and many others; `newline` follows each turn."""
    return (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
        + _content(image, video, audio)
        + "{{ '<|im_end|>"
        + newline
        + "' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )


# SmolVLM's stock template: list content only, and a space before a text that BPE merges into the answer's first token.
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% elif line['type'] == 'video' %}{{ '<video>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

# Gemma's: the system text is put before the first user turn, `assistant` is called `model`, and content is trimmed.
GEMMA_TEMPLATE = """{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}
{%- if messages[0]['content'] is string -%}{%- set first = messages[0]['content'] + '\n\n' -%}
{%- else -%}{%- set first = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}
{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first = '' -%}{%- set loop_messages = messages -%}{%- endif -%}
{%- for message in loop_messages -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}
{%- if message['content'] is string -%}{{ message['content'] | trim }}
{%- else -%}{%- for item in message['content'] -%}
{%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
{%- endfor -%}{%- endif -%}{{ '<end_of_turn>\n' }}
{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""

# LLaVA-OneVision's: media first in each turn; turns open with `assistant \\n`, but its generation prompt with `assistant\\n`.
ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% if message['role'] != 'assistant' %}{{ '\\n' + content['text'] }}"
    "{% else %}{% generation %}{{ '\\n' + content['text'] }}{% endgeneration %}{% endif %}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Qwen2-Audio's: a default system turn, and numbered sounds.
AUDIO_TEMPLATE = (
    "{% set audio_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'audio' %}"
    "{% set audio_count.value = audio_count.value + 1 %}Audio {{ audio_count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(name: str) -> tuple[Any, Any]:
    """(model, processor) of a family: float32, on the CPU, in training mode."""
    from foveate.model.load import prepare_transformers

    prepare_transformers()
    import torch

    model_class, config, processor = _FAMILIES[name]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(config), processor


def processor(name: str) -> Any:
    """The processor alone: no model is built."""
    from foveate.model.load import prepare_transformers

    prepare_transformers()
    return _FAMILIES[name]()[2]


def save(name: str, folder: Path | str) -> Path:
    """Writes the family's model and processor to `folder`, as `from_pretrained` reads them."""
    model, its_processor = build(name)
    model.save_pretrained(folder)
    its_processor.save_pretrained(folder)
    return Path(folder)


def tokenizer(special: tuple[str, ...], *, eos: str, pad: str, bos: str | None = None, extra: dict[str, str] | None = None) -> Any:
    """A byte-level BPE tokenizer of about 600 tokens that covers every text; `special` get the first ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(_CORPUS * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, pad_token=pad, bos_token=bos, extra_special_tokens=extra or {}, padding_side="right"
    )


def _chatml_tokenizer(*more: str, extra: dict[str, str] | None = None, eos: str = "<|im_end|>") -> Any:
    return tokenizer(_CHATML + more, eos=eos, pad="<|endoftext|>", extra=extra)


def _llama(tok: Any) -> dict[str, Any]:
    ids = dict(bos_token_id=None, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    return dict(model_type="llama", vocab_size=len(tok), **ids, **_TEXT)


def _qwen2(tok: Any) -> dict[str, Any]:
    return {**_llama(tok), "model_type": "qwen2"}


_SMOL_TOKENS = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "<video>") + tuple(
    f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)
)


def _smolvlm(split: bool = False, smol: bool = True) -> tuple[Any, Any, Any]:
    """SmolVLM or Idefics3: 16 tokens a tile of 64x64; with `split` an image is up to 2x2 tiles and a global view."""
    import transformers as hf

    tok = _chatml_tokenizer(*_SMOL_TOKENS, eos="<end_of_utterance>")
    sizes = dict(size={"longest_edge": 128 if split else 64}, max_image_size={"longest_edge": 64})
    images = (hf.SmolVLMImageProcessor if smol else hf.Idefics3ImageProcessor)(do_image_splitting=split, **sizes)
    if smol:
        video = hf.SmolVLMVideoProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 64}, num_frames=4, fps=1)
        processor = hf.SmolVLMProcessor(images, tok, video, image_seq_len=16, chat_template=SMOLVLM_TEMPLATE)
    else:
        processor = hf.Idefics3Processor(images, tok, image_seq_len=16, chat_template=SMOLVLM_TEMPLATE)
    config = (hf.SmolVLMConfig if smol else hf.Idefics3Config)(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tok.pad_token_id,
        vision_config=dict(hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8),
        text_config=_llama(tok),
    )
    return hf.SmolVLMForConditionalGeneration if smol else hf.Idefics3ForConditionalGeneration, config, processor


_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_TEMPLATE = chatml("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")


def _qwen_ids(tok: Any) -> dict[str, int]:
    ids = tok.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"])
    return dict(zip(("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"), ids, strict=True))


def _qwen2_5_vl() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _chatml_tokenizer(*_QWEN_TOKENS)
    limits = dict(min_pixels=28 * 28, max_pixels=112 * 112)
    processor = hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessor(**limits), tok, hf.Qwen2VLVideoProcessor(**limits), chat_template=_QWEN_TEMPLATE
    )
    vision = dict(depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4, patch_size=14)
    config = hf.Qwen2_5_VLConfig(
        **_qwen_ids(tok),
        vision_config=dict(vision, fullatt_block_indexes=[1], window_size=56),
        text_config=dict(vocab_size=len(tok), rope_parameters=_ROPE, bos_token_id=None, eos_token_id=2, pad_token_id=0, **_TEXT),
    )
    return hf.Qwen2_5_VLForConditionalGeneration, config, processor


def _qwen2_vl() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _chatml_tokenizer(*_QWEN_TOKENS)
    limits = dict(min_pixels=28 * 28, max_pixels=112 * 112)
    images, video = hf.Qwen2VLImageProcessor(**limits), hf.Qwen2VLVideoProcessor(**limits)
    config = hf.Qwen2VLConfig(
        **_qwen_ids(tok),
        vision_config=dict(depth=2, embed_dim=64, hidden_size=128, mlp_ratio=2, num_heads=4, patch_size=14),
        text_config=dict(vocab_size=len(tok), rope_parameters=_ROPE, bos_token_id=None, eos_token_id=2, pad_token_id=0, **_TEXT),
    )
    return hf.Qwen2VLForConditionalGeneration, config, hf.Qwen2VLProcessor(images, tok, video, chat_template=_QWEN_TEMPLATE)


def _qwen3_vl() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _chatml_tokenizer(*_QWEN_TOKENS)
    images = hf.Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128})
    video = hf.Qwen3VLVideoProcessor(size={"shortest_edge": 32 * 32, "longest_edge": 8 * 128 * 128})
    processor = hf.Qwen3VLProcessor(images, tok, video, chat_template=_QWEN_TEMPLATE)
    vision = dict(depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4, patch_size=16)
    config = hf.Qwen3VLConfig(
        **_qwen_ids(tok),
        vision_config=dict(vision, num_position_embeddings=64, deepstack_visual_indexes=[0]),
        text_config=dict(vocab_size=len(tok), head_dim=32, rope_parameters=dict(_ROPE, mrope_interleaved=True), pad_token_id=0, **_TEXT),
    )
    return hf.Qwen3VLForConditionalGeneration, config, processor


def _gemma3() -> tuple[Any, Any, Any]:
    import transformers as hf

    extra = dict(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    tok = tokenizer(_GEMMA + tuple(extra.values()), eos="<eos>", pad="<pad>", bos="<bos>", extra=extra)
    images = hf.Gemma3ImageProcessor(size={"height": 64, "width": 64})
    processor = hf.Gemma3Processor(images, tok, image_seq_length=16, chat_template=GEMMA_TEMPLATE)
    vision = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8)
    config = hf.Gemma3Config(
        boi_token_index=tok.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tok.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tok.convert_tokens_to_ids("<image_soft_token>"),
        mm_tokens_per_image=16,
        vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **vision),
        text_config=dict(vocab_size=len(tok), head_dim=32, query_pre_attn_scalar=32, sliding_window=64, **_TEXT),
    )
    return hf.Gemma3ForConditionalGeneration, config, processor


_VISION = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=16)


def _llava_onevision() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _chatml_tokenizer("<image>", "<video>", extra=dict(image_token="<image>", video_token="<video>"))
    pinpoints = [[64, 64], [64, 128], [128, 64]]
    size = {"height": 64, "width": 64}
    images = hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints)
    video = hf.LlavaOnevisionVideoProcessor(size=size)
    processor = hf.LlavaOnevisionProcessor(
        images, tok, video, num_image_tokens=16, vision_feature_select_strategy="full", chat_template=ONEVISION_TEMPLATE
    )
    config = hf.LlavaOnevisionConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **_VISION),
        text_config=_qwen2(tok),
    )
    return hf.LlavaOnevisionForConditionalGeneration, config, processor


def _qwen2_audio() -> tuple[Any, Any, Any]:
    """Sounds of up to 4 s, 32 mel bins: a second is 25 tokens."""
    import transformers as hf

    tok = _chatml_tokenizer("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    features = hf.WhisperFeatureExtractor(feature_size=32, chunk_length=4)
    processor = hf.Qwen2AudioProcessor(features, tok, chat_template=AUDIO_TEMPLATE)
    sound = dict(num_mel_bins=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128, d_model=64, max_source_positions=200)
    config = hf.Qwen2AudioConfig(audio_token_index=tok.convert_tokens_to_ids("<|AUDIO|>"), audio_config=sound, text_config=_qwen2(tok))
    return hf.Qwen2AudioForConditionalGeneration, config, processor


def _paligemma() -> tuple[Any, Any, Any]:
    """Its processor puts <bos> and a newline into the text after templating, so labels must follow the tokenizer's own input."""
    import transformers as hf

    tok = tokenizer(_GEMMA + ("<image>",), eos="<eos>", pad="<pad>", bos="<bos>", extra=dict(image_token="<image>"))
    images = hf.SiglipImageProcessor(size={"height": 64, "width": 64})
    images.image_seq_length = 16
    template = chatml("<image>").replace("<|im_start|>", "<start_of_turn>").replace("<|im_end|>", "<end_of_turn>")
    processor = hf.PaliGemmaProcessor(images, tok, chat_template=template)
    config = hf.PaliGemmaConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        projection_dim=128,
        hidden_size=128,
        vision_config=dict(model_type="siglip_vision_model", projection_dim=128, vision_use_head=False, num_image_tokens=16, **_VISION),
        text_config=dict(model_type="gemma", vocab_size=len(tok), head_dim=32, **_TEXT),
    )
    return hf.PaliGemmaForConditionalGeneration, config, processor


def _llava() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _chatml_tokenizer("<image>", extra=dict(image_token="<image>"))
    images = hf.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    options = dict(patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    processor = hf.LlavaProcessor(images, tok, **options, chat_template=chatml("<image>\n"))
    config = hf.LlavaConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_config=dict(model_type="clip_vision_model", **_VISION),
        text_config=_llama(tok),
    )
    return hf.LlavaForConditionalGeneration, config, processor


def _internvl() -> tuple[Any, Any, Any]:
    import transformers as hf

    extra = dict(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>")
    tok = _chatml_tokenizer(*extra.values(), extra=extra)
    size = {"height": 56, "width": 56}
    images = hf.GotOcr2ImageProcessor(size=size, crop_to_patches=False)
    template = chatml("<IMG_CONTEXT>\n", "<video>\n")
    processor = hf.InternVLProcessor(images, tok, hf.InternVLVideoProcessor(size=size), image_seq_length=4, chat_template=template)
    vision = dict(_VISION, image_size=[56, 56], patch_size=[14, 14])
    config = hf.InternVLConfig(
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4, vision_config=vision, text_config=_qwen2(tok)
    )
    return hf.InternVLForConditionalGeneration, config, processor


_FAMILIES: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "smolvlm": _smolvlm,
    "smolvlm_split": lambda: _smolvlm(split=True),
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "gemma3": _gemma3,
    "llava_onevision": _llava_onevision,
    "qwen2_audio": _qwen2_audio,
    "paligemma": _paligemma,
    "idefics3": lambda: _smolvlm(smol=False),
    "llava": _llava,
    "internvl": _internvl,
    "qwen2_vl": _qwen2_vl,
}
