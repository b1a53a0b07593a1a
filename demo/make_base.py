"""Writes the untrained embedded model: `python demo/make_base.py --out demo/data/tiny_random`.

A SmolVLM of 1.4 million random weights with a byte-level tokenizer (trained here on the project's own questions and answers),
its processor and its chat template. `recipes/tiny_base.yaml` trains it from there.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from draw_shapes import draw_scene
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from foveate.model.load import prepare_transformers

SIDE, PATCH, SCALE = 80, 8, 2  # pixels, pixels, and the side of the block of patches that becomes one token
VOCABULARY = 512
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>", "<fake_token_around_image>", "<global-img>")
VISION = {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 3}
LANGUAGE = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
# `<|im_end|>` ends every turn, the assistant's too: it is what the model learns to stop with.
TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<image>' -}}
{%- elif part['type'] == 'video' -%}{{- '<video>' -}}
{%- else -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def corpus(seed: int, scenes: int = 1500) -> list[str]:
    """What the tokenizer is trained on: questions and answers of random scenes, and the roles' names."""
    rng = random.Random(f"{seed} corpus")
    # Without the sheets and words, so that capitals, like digits, stay tokens of their own: one cell, one token.
    asked = [item for _ in range(scenes) for item in draw_scene(rng)[1] if item.kind not in {"sheet", "line", "words"}]
    texts = [text for item in asked for text in (item.question, item.answer)]
    roles = ["user\n", "assistant\n", "system\n"] * 200
    return [*texts, *roles, *["You are a helpful assistant. Describe this image. Answer in one word."] * 20]


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE in which every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet, min_frequency=20, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def build_processor(tokenizer: Tokenizer):  # noqa: ANN201 (transformers is imported late)
    """The processor: every image becomes SIDE x SIDE pixels and (SIDE / PATCH / SCALE)^2 tokens."""
    from transformers import PreTrainedTokenizerFast, SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="right", model_max_length=2048
    )
    wrapped.chat_template = TEMPLATE
    edge = {"longest_edge": SIDE}
    return SmolVLMProcessor(
        SmolVLMImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False),
        wrapped,
        SmolVLMVideoProcessor(size=edge, max_image_size=edge, num_frames=4, fps=1),
        image_seq_len=(SIDE // PATCH // SCALE) ** 2,
        chat_template=TEMPLATE,
    )


def build_model(processor, seed: int):  # noqa: ANN001, ANN201 (transformers is imported late)
    """The model: Xavier's weights for matrices, but see `mimic` for the vision tower's attention."""
    from transformers import GenerationConfig, SmolVLMConfig, SmolVLMForConditionalGeneration

    ids = processor.tokenizer.convert_tokens_to_ids
    pad, end = ids("<|endoftext|>"), ids("<|im_end|>")
    config = SmolVLMConfig(
        image_token_id=ids("<image>"), scale_factor=SCALE, pad_token_id=pad, eos_token_id=end,
        vision_config={"image_size": SIDE, "patch_size": PATCH, **VISION},
        text_config={
            "model_type": "llama", "vocab_size": len(processor.tokenizer), "max_position_embeddings": 2048,
            "pad_token_id": pad, "bos_token_id": None, "eos_token_id": end, **LANGUAGE,
        },
    )  # fmt: skip
    torch.manual_seed(seed)
    model = SmolVLMForConditionalGeneration(config)
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 and not name.endswith(("embed_tokens.weight", "position_embedding.weight")):
            nn.init.xavier_uniform_(weight.view(len(weight), -1))
    mimic(model.model.vision_model)
    model.generation_config = GenerationConfig(pad_token_id=pad, eos_token_id=end, do_sample=False)
    return model


@torch.no_grad()
def mimic(tower: nn.Module) -> None:
    """Starts the vision tower the way trained ones look; from there it learns to read at once, from plain noise hardly at all.

    A patch first attends to patches like it and near it: W_q' W_k ~ 0.7 Z + 0.7 I and W_o W_v ~ 0.4 Z - 0.4 I, with Z random, beside
    sinusoidal position embeddings ("Mimetic Initialization of Self-Attention Layers", Trockman & Kolter, 2023).
    """
    width, heads = tower.config.hidden_size, tower.config.num_attention_heads
    size = width // heads
    for layer in tower.encoder.layers:
        attention = layer.self_attn
        for head in range(heads):
            u, s, v = torch.linalg.svd(0.7 * _noise(width) + 0.7 * torch.eye(width))
            rows, root = slice(head * size, (head + 1) * size), s[:size].sqrt()[:, None]
            attention.q_proj.weight[rows], attention.k_proj.weight[rows] = root * u.T[:size], root * v[:size]
        u, s, v = torch.linalg.svd(0.4 * _noise(width) - 0.4 * torch.eye(width))
        attention.v_proj.weight.copy_(s.sqrt()[:, None] * v)
        attention.out_proj.weight.copy_(u * s.sqrt())
    places, quarter = torch.arange(SIDE // PATCH), width // 4
    angles = places[:, None] * 50 ** -(torch.arange(quarter) / quarter)
    wave = torch.cat([angles.sin(), angles.cos()], dim=1)  # [patches a side, width / 2]
    down, across = wave[:, None].expand(-1, len(places), -1), wave[None].expand(len(places), -1, -1)
    tower.embeddings.position_embedding.weight.copy_(0.4 * torch.cat([down, across], dim=2).flatten(0, 1))


def _noise(width: int) -> torch.Tensor:
    return torch.randn(width, width) / width**0.5


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo/data/tiny_random"), help="model folder to write")
    parser.add_argument("--seed", type=int, default=0, help="fixes the weights and the tokenizer")
    arguments = parser.parse_args()
    prepare_transformers()
    processor = build_processor(train_tokenizer(corpus(arguments.seed)))
    model = build_model(processor, arguments.seed)
    model.save_pretrained(arguments.out)
    processor.save_pretrained(arguments.out)
    print(f"{arguments.out}: {sum(p.numel() for p in model.parameters()):,} weights, {len(processor.tokenizer)} tokens")


if __name__ == "__main__":
    main()
