"""Traps of this field in what is encoded: each bit a tool that many use, each is a test here."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow

from foveate.batching.collate import collate_padded
from foveate.encode.encoder import IGNORED, Encoder
from foveate.errors import TemplateError
from foveate.model.families import family_of, positions_of
from foveate.model.loss import loss_sum
from foveate.types import Audio, Conversation, Image, Message, Text
from tests import families
from tests.e2e.conftest import picture, write_jsonl, write_recipe

# What reasoning models' templates do: an empty thought before the last answer, and nowhere else.
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if loop.last and m['role'] == 'assistant' %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def user(*parts) -> Message:
    return Message(role="user", parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts))


def assistant(text: str) -> Message:
    return Message(role="assistant", parts=(Text(text=text),))


def png(folder, name="one.png", size=(64, 64)) -> Image:
    picture("red", size).save(folder / name)
    return Image(path=folder / name)


def stretches(encoder: Encoder, conversation: Conversation) -> list[str]:
    """The text of each unbroken run of labels."""
    example = encoder(conversation)
    found, run = [], []
    for token, label in zip([*example.input_ids.tolist(), 0], [*example.labels.tolist(), IGNORED], strict=True):
        if label != IGNORED:
            run.append(token)
        elif run:
            found.append(encoder.text(run))
            run = []
    return found


@pytest.mark.parametrize("name", ["smolvlm", "qwen2_5_vl", "gemma3", "llava_onevision"])
def test_labels_found_by_searching_for_the_answers_text(name, tmp_path):
    """The question's "yes" gets trained."""
    encoder = Encoder(families.processor(name))
    asked = Conversation(messages=(user(png(tmp_path), "Say yes or no: yes"), assistant("yes"), user("no?"), assistant("no")))
    first, second = stretches(encoder, asked)
    assert first.strip().startswith("yes") and first.count("yes") == 1
    assert second.strip().startswith("no") and second.count("no") == 1


def test_extra_tokens_that_a_template_adds_to_the_last_turn_only():
    """Masks made from a prefix of the conversation are then off by those tokens."""
    processor = families.processor("qwen2_5_vl")
    processor.chat_template = THINKING
    encoder = Encoder(processor)
    asked = Conversation(messages=(user("one?"), assistant("two"), user("three?"), assistant("four")))
    assert stretches(encoder, asked) == ["two<|im_end|>", "<think>\n\n</think>\n\nfour<|im_end|>"]
    alone = Conversation(messages=asked.messages[:2])
    assert stretches(encoder, alone) == ["<think>\n\n</think>\n\ntwo<|im_end|>"]
    assert any("<think>" in note for note in encoder.notes)


def test_media_tokens_cut_by_truncation(work, foveate):
    """A sample that does not fit is set aside whole, by name; every one that trains has all of its image's tokens."""
    base = families.save("qwen2_5_vl", work / "base")
    picture("red", (112, 112)).save(work / "large.png")
    picture("red", (28, 28)).save(work / "small.png")
    question = "what color is the object?"
    write_jsonl(work / "train.jsonl", [{"image": f"{n}.png", "question": question, "answer": "red"} for n in ("small", "large", "small")])
    whole = Conversation(messages=(user(Image(path=work / "large.png"), question), assistant("red")))
    longest = Encoder(families.processor("qwen2_5_vl")).length(whole).tokens
    limits = {"data": {"train": [{"path": "train.jsonl"}], "workers": 0, "max_bad": 1}, "batch": {"size": 3, "max_tokens": longest - 1}}
    recipe = write_recipe(work, base, train={"steps": 1, "output": "run"}, **limits)
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    (line,) = [json.loads(line) for line in (work / "run/quarantine.jsonl").read_text().splitlines()]
    assert (line["reason"], line["origin"]["row"]) == ("too_long", 1)
    facts = json.loads((work / "run/run.json").read_text())
    assert (facts["read"], facts["used"], facts["quarantined"]) == (3, 2, 1)


def test_placeholders_and_images_that_differ_in_number_repaired_silently(work, model_dir, foveate):
    picture("red").save(work / "red.png")
    turns = [{"from": "human", "value": "<image><image>What?"}, {"from": "gpt", "value": "red"}]
    write_jsonl(work / "train.jsonl", [{"image": "red.png", "conversations": turns}])
    result = foveate("train", write_recipe(work, model_dir))
    assert result.code == 2
    assert "placeholder_mismatch" in result.text and "row 0" in result.text
    assert not (work / "run/model").exists()


@pytest.mark.parametrize("name", families.NAMES)
def test_training_on_without_images_while_the_loss_falls(name, tmp_path):
    """The loss depends on what the image shows or the recording says."""
    model, processor = families.build(name)
    encoder = Encoder(processor, positions=positions_of(model.config))
    medium = noise(tmp_path) if "audio" in name else png(tmp_path)
    batch = collate_padded([encoder(talk_about(medium))], family_of(model.config), pad_id=encoder.pad_id)
    seen = next(part for part in ("pixel_values", "input_features") if part in batch.inputs)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 4  # first weights are so small that nothing has much effect
    losses = []
    for tensor in (batch.inputs[seen], torch.flip(batch.inputs[seen], [-1]) + 0.5):
        changed = replace(batch, inputs=batch.inputs | {seen: tensor})
        losses.append(float(loss_sum(model.eval(), changed, keeps_logits=False).detach()))
    assert abs(losses[0] - losses[1]) > 1e-3 * losses[0]


@pytest.mark.parametrize("name", ["smolvlm", "qwen2_5_vl", "gemma3"])
def test_a_template_that_shows_no_image(name, tmp_path):
    """Elsewhere such a template trains on text alone. Here the image is written where it stands, all of its tokens, or it is an error."""
    processor = families.processor(name)
    example = Encoder(processor)(talk_about(png(tmp_path)))
    end = processor.tokenizer.eos_token
    processor.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' }}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endif %}{{ '" + end + "' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    blind = Encoder(processor)
    assert any("media are written where they stand" in note for note in blind.notes)
    ids = processor.tokenizer.convert_tokens_to_ids([processor.image_token])
    assert sum(int((blind(talk_about(png(tmp_path))).input_ids == i).sum()) for i in ids) > 0
    assert blind(talk_about(png(tmp_path))).media["pixel_values"].shape == example.media["pixel_values"].shape
    processor.chat_template = processor.chat_template.replace("{{ m['content'] }}", "")
    with pytest.raises(TemplateError):
        Encoder(processor)(talk_about(png(tmp_path)))


def talk_about(medium) -> Conversation:
    return Conversation(messages=(user(medium, "what?"), assistant("a red circle")))


def noise(folder) -> Audio:
    soundfile.write(folder / "one.wav", np.random.default_rng(0).normal(0, 0.1, 8000).astype("float32"), 16000)
    return Audio(path=folder / "one.wav")


def test_exif_rotation_by_accident_of_storage(tmp_path):
    """A photo that a phone stored lying on its side has the pixels of the same photo stored upright."""
    encoder = Encoder(families.processor("qwen2_5_vl"))
    upright = Pillow.new("RGB", (84, 56), (240, 240, 236))
    upright.paste((214, 40, 40), (0, 0, 42, 28))
    upright.save(tmp_path / "upright.png")
    exif = Pillow.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees to the right"
    upright.transpose(Pillow.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    found = [encoder(Conversation(messages=(user(Image(path=tmp_path / n), "?"), assistant("red")))) for n in ("upright.png", "lying.png")]
    assert torch.equal(found[0].input_ids, found[1].input_ids)
    assert torch.equal(found[0].media["pixel_values"], found[1].media["pixel_values"])
    assert torch.equal(found[0].media["image_grid_thw"], found[1].media["image_grid_thw"])
