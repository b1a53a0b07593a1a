"""The reference of the matrix: loss, gradients and answers by transformers alone, with labels found by hand.

All that is taken over from Foveate is which tokens end a turn.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig

# (role, what is said, media of the talk's kind given by their numbers), turn by turn.
Script = Sequence[tuple[str, Sequence[str | int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """A conversation with media of one kind; `files` holds the number-th one's file, a clip's as those of its frames."""

    script: Script
    kind: str
    files: Mapping[int, bytes | list[bytes]]
    token: str | None  # the medium's, where the template takes only text

    def chat(self, turns: int | None = None) -> list[dict[str, Any]]:
        """The first turns as templates take them, all by default."""
        chat = []
        for role, parts in self.script[:turns]:
            content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": self.kind} for part in parts]
            chat.append({"role": role, "content": content})
        return chat if self.token is None else strings(chat, self.token)

    def media(self, turns: int | None = None) -> dict[str, Any]:
        """The media of the first turns as the processor's keyword arguments."""
        numbers = [part for _, parts in self.script[:turns] for part in parts if not isinstance(part, str)]
        return media_arguments(self.kind, [self.files[number] for number in numbers]) if numbers else {}


def token_for_strings(processor: Any, kind: str) -> str | None:
    """The medium's token where the template takes only text, so that it has to be written out; else None."""
    token = vars(processor).get(f"{kind}_token")
    if not isinstance(token, str):
        return None
    said = {"type": "text", "text": "what?"}
    try:
        once, bare = (
            processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
            for content in ([{"type": kind}, said], [said])
        )
    except (TypeError, ValueError, jinja2.TemplateError):
        return token
    return token if once == bare or "'type':" in once else None


def strings(chat: list[dict[str, Any]], token: str) -> list[dict[str, Any]]:
    """The same for a template that takes only text: the medium is written as its token."""
    joined = []
    for turn in chat:
        parts = turn["content"] if isinstance(turn["content"], list) else [{"type": "text", "text": turn["content"]}]
        joined.append({"role": turn["role"], "content": "".join(part.get("text", token) for part in parts)})
    return joined


def media_arguments(kind: str, files: Sequence[bytes | list[bytes]]) -> dict[str, Any]:
    """Media of one conversation as the processor's keyword arguments."""
    if kind == "image":
        return {"images": [[Image.open(io.BytesIO(file)) for file in files]]}
    if kind == "audio":
        sounds = [soundfile.read(io.BytesIO(file), dtype="float32") for file in files]
        return {"audio": [samples for samples, _ in sounds], "sampling_rate": sounds[0][1]}
    clips = [np.stack([np.asarray(Image.open(io.BytesIO(frame))) for frame in file]) for file in files]
    about = []
    for clip in clips:
        count, height, width = clip.shape[:3]
        seconds = {"total_num_frames": count, "fps": 2.0, "duration": count / 2, "frames_indices": list(range(count))}
        about.append({**seconds, "height": height, "width": width})
    return {"videos": [clips], "video_metadata": [about], "do_sample_frames": False, "return_metadata": True}


def encode(processor: Any, chat: list[dict[str, Any]], media: dict[str, Any], *, generation: bool = False) -> dict[str, Tensor]:
    """Rendered by the processor's own template, then one call of the processor."""
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=generation)
    bos = processor.tokenizer.bos_token
    options = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
    if "mm_token_type_ids" in processor.model_input_names:
        options["return_mm_token_type_ids"] = True
    try:
        outputs = dict(processor(text=[text], return_tensors="pt", **options, **media))
    except ValueError:
        if "images" not in media:
            raise
        # GOT-OCR takes images in one list, not in a list for each conversation.
        outputs = dict(processor(text=[text], return_tensors="pt", **options, **{**media, "images": media["images"][0]}))
    outputs.pop("video_metadata", None)
    return outputs


def answers_at(processor: Any, talk: Talk, ids: list[int], ends: frozenset[int]) -> list[tuple[int, int]]:
    """(first, last) token that the model must write, for every answer, the last one first.

    An answer begins where the prompt of its turn ends, or else at the last place from which the ids read as the answer.
    """
    def reads(first: int, behind: int) -> bool:
        return answer in processor.tokenizer.decode(ids[first:behind], skip_special_tokens=True)

    places, limit = [], len(ids)
    for turn in reversed([i for i, (role, _) in enumerate(talk.script) if role == "assistant"]):
        answer = talk.script[turn][1][0]
        asked = encode(processor, talk.chat(turn), talk.media(turn), generation=True)["input_ids"][0].tolist()
        if asked == ids[: len(asked)] and len(asked) < limit:
            first = len(asked)
        else:
            so_far = encode(processor, talk.chat(turn + 1), talk.media(turn + 1))["input_ids"][0].tolist()
            behind = next((t for t, (a, b) in enumerate(zip(so_far, ids, strict=False)) if a != b), min(len(so_far), limit))
            first = next(k for k in range(behind - 1, 0, -1) if reads(k, behind))
        last = next((t for t in range(first, limit) if ids[t] in ends), None)
        if last is None:  # only the conversation's last turn is ended by a token
            last = next(t for t in range(first, limit) if reads(first, t + 1))
        places.append((first, last))
        limit = first
    return places


def decoder_loss(model: nn.Module, processor: Any, talk: Talk) -> Tensor:
    """Losses by token where the question is the encoder's, without a template where that can be, and the answer the decoder's."""
    tokenizer = processor.tokenizer
    question = "".join(part for part in talk.script[0][1] if isinstance(part, str))
    try:
        inputs = dict(processor(text=[question], return_tensors="pt", **talk.media()))
    except ValueError:  # unlike Florence-2's, it wants the image's place in the text
        inputs = encode(processor, talk.chat(1), talk.media(), generation=True)
    begins_otherwise = model.config.get_text_config(decoder=True).to_dict().get("decoder_start_token_id") is not None
    written = f"{tokenizer.bos_token if begins_otherwise else ''}{talk.script[1][1][0]}{tokenizer.eos_token}"
    labels = tokenizer(written, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return functional.cross_entropy(model(**inputs, labels=labels).logits[0].float(), labels[0], reduction="none")


def loss_and_gradients(
    model: nn.Module, processor: Any, talks: Sequence[Talk], ends: frozenset[int], options: dict[str, bool]
) -> tuple[float, dict[str, Tensor]]:
    """(token-mean loss over all answers, gradients by parameter), one forward a talk; `options` are further arguments of the forward."""
    model.zero_grad(set_to_none=True)
    losses = []
    for talk in talks:
        if model.config.is_encoder_decoder:
            losses.append(decoder_loss(model, processor, talk))
            continue
        inputs = in_float32(encode(processor, talk.chat(), talk.media()))
        ids = inputs["input_ids"][0].tolist()
        logits = model(**inputs, **options).logits[0].float()
        for first, last in answers_at(processor, talk, ids, ends):
            losses.append(functional.cross_entropy(logits[first - 1 : last], torch.tensor(ids[first : last + 1]), reduction="none"))
    loss = torch.cat(losses).mean()
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def in_float32(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs without labels; Llama 4's pixels are bfloat16, and some counts are lists."""
    inputs = {name: value for name, value in inputs.items() if name != "labels"}
    return inputs | {name: value.float() for name, value in inputs.items() if isinstance(value, Tensor) and value.is_floating_point()}


def answer(model: nn.Module, processor: Any, talk: Talk, ends: frozenset[int], options: dict[str, bool]) -> tuple[list[int], str]:
    """(ids of the prompt, four tokens of a greedy answer) to the talk's first turn."""
    inputs = in_float32(encode(processor, talk.chat(1), talk.media(1), generation=True))
    if "mm_token_type_ids" not in inspect.signature(model.forward).parameters:
        inputs.pop("mm_token_type_ids", None)
    config = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=4, repetition_penalty=1.0, eos_token_id=sorted(ends), pad_token_id=min(ends)
    )
    with torch.no_grad():
        out = model.eval().generate(**inputs, **options, generation_config=config)[0]
    new = out if model.config.is_encoder_decoder else out[inputs["input_ids"].shape[1] :]
    return inputs["input_ids"][0].tolist(), processor.tokenizer.decode(new, skip_special_tokens=True).strip()
