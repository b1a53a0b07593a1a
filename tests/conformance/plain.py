"""The reference of the matrix: loss and gradients by transformers alone, with labels found by hand. Nothing of Foveate is used here."""

from __future__ import annotations

import io
from typing import Any

import jinja2
import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional


def chat_of(question: str, kind: str) -> list[dict[str, Any]]:
    """A user's turn about one medium."""
    return [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": question}]}]


def token_for_strings(processor: Any, kind: str) -> str | None:
    """The medium's token where the template takes only text, so that it has to be written out; else None."""
    token = vars(processor).get(f"{kind}_token")
    if not isinstance(token, str):
        return None
    try:
        once = processor.apply_chat_template(chat_of("what?", kind), tokenize=False)
        bare = processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "what?"}]}], tokenize=False)
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


def media_arguments(kind: str, data: bytes | list[bytes]) -> dict[str, Any]:
    """A medium's file (a clip: its frames' files) as the processor's keyword arguments."""
    if kind == "image":
        return {"images": [[Image.open(io.BytesIO(data))]]}
    if kind == "audio":
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        return {"audio": [samples], "sampling_rate": rate}
    frames = np.stack([np.asarray(Image.open(io.BytesIO(frame))) for frame in data])
    height, width = frames.shape[1:3]
    about = {"total_num_frames": len(frames), "fps": 2.0, "duration": len(frames) / 2, "frames_indices": list(range(len(frames)))}
    settings = {"do_sample_frames": False, "return_metadata": True}
    return {"videos": [[frames]], "video_metadata": [[{**about, "height": height, "width": width}]], **settings}


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


def answer_place(processor: Any, chat: list[dict[str, Any]], answer: str, media: dict[str, Any], ids: list[int]) -> int:
    """The first token that the model must write: where the prompt ends, or else the last place from which the ids read as the answer."""
    asked = encode(processor, chat, media, generation=True)["input_ids"][0].tolist()
    if asked == ids[: len(asked)] and len(asked) < len(ids):
        return len(asked)
    places = (k for k in range(len(ids) - 1, 0, -1) if answer in processor.tokenizer.decode(ids[k:], skip_special_tokens=True))
    return next(places)


def decoder_loss(model: nn.Module, processor: Any, chat: list[dict[str, Any]], answer: str, media: dict[str, Any]) -> Tensor:
    """Losses by token where the question is the encoder's, without a template where that can be, and the answer the decoder's."""
    tokenizer = processor.tokenizer
    question = "".join(part.get("text", "") for part in chat[0]["content"])
    try:
        inputs = dict(processor(text=[question], return_tensors="pt", **media))
    except ValueError:  # unlike Florence-2's, it wants the image's place in the text
        inputs = encode(processor, chat, media, generation=True)
    begins_otherwise = model.config.get_text_config(decoder=True).to_dict().get("decoder_start_token_id") is not None
    written = f"{tokenizer.bos_token if begins_otherwise else ''}{answer}{tokenizer.eos_token}"
    labels = tokenizer(written, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return functional.cross_entropy(model(**inputs, labels=labels).logits[0].float(), labels[0], reduction="none")


def loss_and_gradients(
    model: nn.Module,
    processor: Any,
    talks: list[tuple[list[dict[str, Any]], str, dict[str, Any], str | None]],
    ends: frozenset[int],
    options: dict[str, bool],
) -> tuple[float, dict[str, Tensor]]:
    """(token-mean loss, gradients by parameter), one forward a talk: (chat, answer, media, the placeholder of a text-only template).

    `options` are further arguments of the model's forward.
    """
    model.zero_grad(set_to_none=True)
    losses = []
    for chat, answer, media, token in talks:
        if model.config.is_encoder_decoder:
            losses.append(decoder_loss(model, processor, chat, answer, media))
            continue
        turn = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        asked, whole = (chat, [*chat, turn]) if token is None else (strings(chat, token), strings([*chat, turn], token))
        inputs = encode(processor, whole, media)
        ids = inputs["input_ids"][0].tolist()
        first = answer_place(processor, asked, answer, media, ids)
        last = next(t for t in range(first, len(ids)) if ids[t] in ends)
        inputs.pop("labels", None)
        # Llama 4's are bfloat16; some counts are lists.
        floats = {name: value.float() for name, value in inputs.items() if isinstance(value, Tensor) and value.is_floating_point()}
        inputs |= floats
        logits = model(**inputs, **options).logits[0].float()
        losses.append(functional.cross_entropy(logits[first - 1 : last], torch.tensor(ids[first : last + 1]), reduction="none"))
    loss = torch.cat(losses).mean()
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
