"""A packed step against plain transformers written by hand: its own template call, one forward a conversation, its own cross-entropy."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from foveate.model.attention import use_segments
from tests import families
from tests.unit.batching.test_equality import answer, assert_equal, make_source, step, user

CHATS = [("how many objects are there?", "two", True), ("what color?", "red circle", True), ("say yes or no", "yes", False)]
# LLaVA-OneVision is not here: its generation prompt is not how its turns begin, so the answer can't be found in this simple way.
END_OF_TURN = {
    "smolvlm": "<end_of_utterance>", "qwen2_5_vl": "<|im_end|>", "qwen3_vl": "<|im_end|>", "gemma3": "<end_of_turn>",
    "internvl": "<|im_end|>",
}  # fmt: skip


def picture(number):
    return Image.new("RGB", (64, 64 if number % 2 else 48), (40 * number, 90, 200))


def by_hand(name, model, processor):
    """(loss, gradients, targets) of all conversations twice, the token mean over them."""
    model.zero_grad(set_to_none=True)
    end, losses = processor.tokenizer.convert_tokens_to_ids(END_OF_TURN[name]), []
    for number, (question, text, seen) in enumerate(CHATS * 2):
        media = [{"type": "image", "image": picture(number % 3)}] if seen else []
        chat = [{"role": "user", "content": [*media, {"type": "text", "text": question}]}, answer(text)]
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        inputs = processor.apply_chat_template(chat, **options)
        ids, asked = inputs["input_ids"][0], processor.apply_chat_template(chat[:1], add_generation_prompt=True, **options)["input_ids"][0]
        assert torch.equal(ids[: len(asked)], asked)
        first = len(asked)
        last = first + ids[first:].tolist().index(end)
        logits = model(**inputs).logits[0].float()
        losses += [torch.nn.functional.cross_entropy(logits[t - 1], ids[t]) for t in range(first, last + 1)]
    loss = torch.stack(losses).mean()
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, len(losses)


@pytest.mark.parametrize("name", END_OF_TURN)
def test_loss_and_gradients_equal_plain_transformers(name, tmp_path):
    model, processor = families.build(name)
    reference = by_hand(name, model, processor)
    rows = []
    for number, (question, text, seen) in enumerate(CHATS * 2):
        picture(number % 3).save(tmp_path / f"{number}.png")
        rows.append([user(*([{"type": "image", "image": f"{number}.png"}] if seen else []), question), answer(text)])
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    use_segments(model)
    assert_equal(step(model, [make_source(model, processor, path, max_tokens=2048)]), reference)
