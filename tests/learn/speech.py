"""Spoken digits, by espeak-ng in many voices, and a tiny Qwen2-Audio with random weights to hear them."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp")
TRAINED = (
    "m1 m2 m3 m4 m5 m6 m8 f1 f2 f3 f5 Andy Alicia Mario Denis Lee linda michel john ed adam caleb pablo paul miguel victor zac Diogo Marco"
    " norbert max Hugo Jacky Henrique Storm edward aunty belinda"
).split()
HELD_OUT = ("m7", "f4", "Michael", "Annie", "steph", "david")
RATE_HZ = 16_000
QUESTION = "which digit is said?"


def say(text: str, path: Path, *, voice: str, accent: str, speed: int, pitch: int) -> None:
    """One clip as a WAV file, 16 kHz mono, silence at its ends taken off by sox."""
    spoken = subprocess.run(
        ["espeak-ng", "-v", f"{accent}+{voice}", "-s", str(speed), "-p", str(pitch), "--stdout", text], check=True, capture_output=True
    ).stdout
    trim = ["silence", "1", "0.01", "0.5%"]
    subprocess.run(
        ["sox", "-t", "wav", "-", "-r", str(RATE_HZ), "-c", "1", "-b", "16", str(path), *trim, "reverse", *trim, "reverse"],
        input=spoken, check=True, capture_output=True,
    )  # fmt: skip


def write_clips(folder: Path, name: str, voices: Sequence[str], each: int, seed: int) -> Path:
    """`each` clips of every digit in every voice, with speed, pitch, accent and noise drawn; returns the records' JSONL."""
    draw, rows = random.Random(seed), []
    noise = np.random.default_rng(seed)
    for voice in voices:
        for digit in DIGITS:
            for i in range(each):
                path = folder / f"{name}-{voice}-{digit}-{i}.wav"
                say(digit, path, voice=voice, accent=draw.choice(ACCENTS), speed=draw.randint(130, 200), pitch=draw.randint(30, 70))
                samples, _ = soundfile.read(path, dtype="float32")
                samples = samples[:RATE_HZ] * draw.uniform(0.5, 1.0)
                soundfile.write(path, samples + noise.normal(0, 0.002, len(samples)).astype("float32"), RATE_HZ)
                rows.append({"audio": path.name, "question": QUESTION, "answer": digit})
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def save_model(folder: Path) -> Path:
    """A Qwen2-Audio of 0.4M parameters that hears one second, 32 mel bands."""
    from foveate.model.load import prepare_transformers

    prepare_transformers()
    import transformers as hf

    from foveate.model.tiny.base import TEXT, chatml_tokenizer
    from foveate.model.tiny.templates import AUDIO_TEMPLATE

    tok = chatml_tokenizer("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    processor = hf.Qwen2AudioProcessor(hf.WhisperFeatureExtractor(feature_size=32, chunk_length=1), tok, chat_template=AUDIO_TEMPLATE)
    sound = dict(num_mel_bins=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128, d_model=64, max_source_positions=50)
    text = {**TEXT, "hidden_size": 64, "intermediate_size": 128, "model_type": "qwen2", "vocab_size": len(tok)}
    ids = dict(bos_token_id=None, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    config = hf.Qwen2AudioConfig(audio_token_index=tok.convert_tokens_to_ids("<|AUDIO|>"), audio_config=sound, text_config={**text, **ids})
    torch.manual_seed(0)
    model = hf.Qwen2AudioForConditionalGeneration(config)
    wake(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def wake(model: nn.Module) -> None:
    """Weights large enough to learn from in a few hundred steps: the families start theirs for long training of large models."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "embed_tokens" not in name and "embed_positions" not in name:
            nn.init.xavier_uniform_(parameter.flatten(1))
