"""Generation: batches answer as single conversations do, greedily, and leave the model as it was."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from foveate.encode.encoder import Encoder
from foveate.evaluate.generate import generate_answers, greedy_config, join_prompts
from foveate.model.families import FAMILIES, Family, positions_of
from foveate.types import Audio, Conversation, Example, Image, Message, Text
from tests.conformance.subject import subject
from tests.families import build

VISION = ("smolvlm", "smolvlm_split", "qwen2_5_vl", "qwen3_vl", "gemma3", "llava_onevision")


@cache
def tiny(name: str) -> tuple[torch.nn.Module, Encoder]:
    model, processor = build(name)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for key, parameter in model.named_parameters():
            # As initialised, layers hardly change their input, and every model repeats the last token for ever.
            if parameter.ndim > 1 and "embed_tokens" not in key:
                parameter.data.normal_(std=0.2)
    return model, Encoder(processor, positions=positions_of(model.config))


def picture(seed: int, size: tuple[int, int]) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, "PNG")
    return Image(data=stream.getvalue())


def ask(text: str, *media) -> Conversation:
    user = Message(role="user", parts=(*media, Text(text=text)))
    return Conversation(messages=(user, Message(role="assistant", parts=(Text(text="a red circle"),))))


def mixed() -> list[Conversation]:
    """Lengths, sizes and numbers of images that differ, one conversation without any, one of several turns."""
    turns = (*ask("how many?", picture(4, (96, 64))).messages, *ask("and what color is the object?").messages)
    return [
        ask("what color is the object?", picture(1, (64, 64))),
        ask("is it red?"),
        ask("how many objects are there in these two?", picture(2, (64, 64)), picture(3, (120, 60))),
        Conversation(messages=turns),
        ask("describe", picture(5, (40, 90))),
    ]


def answers(name: str, conversations: list[Conversation], batch_size: int, **options) -> list[str]:
    model, encoder = tiny(name)
    return generate_answers(model, encoder, conversations, max_new_tokens=6, batch_size=batch_size, device="cpu", **options)


@pytest.mark.parametrize("name", VISION)
def test_batches_answer_as_single_conversations_do(name):
    conversations = mixed()
    alone = answers(name, conversations, 1)
    assert len(set(alone)) > 1, "the test needs answers that differ"
    assert answers(name, conversations, 5) == alone
    assert answers(name, conversations[::-1], 2) == alone[::-1]


def test_speech_is_answered_in_batches():
    soundfile = pytest.importorskip("soundfile")
    sounds = []
    for seed, samples in enumerate((16000, 40000, 8000)):
        stream = io.BytesIO()
        soundfile.write(stream, np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32), 16000, format="WAV")
        sounds.append(ask("what is said?", Audio(data=stream.getvalue())))
    assert answers("qwen2_audio", sounds, 3) == answers("qwen2_audio", sounds, 1)


@pytest.mark.parametrize("name", ["smolvlm", "qwen2_5_vl"])
def test_each_token_is_the_most_likely_one(name):
    """Against whole forward passes without a cache."""
    model, encoder = tiny(name)
    conversation = mixed()[0]
    prompt = encoder.prompt(conversation)
    inputs = {"input_ids": prompt.input_ids[None], **{name: value[None] for name, value in prompt.token_inputs.items()}}
    start, ends = len(prompt.input_ids), greedy_config(model, encoder, 1).eos_token_id
    model.eval()
    for _ in range(6):
        with torch.no_grad():
            token = model(**inputs, **prompt.media, use_cache=False).logits[0, -1].argmax()
        if int(token) in ends:
            break
        for key, value in inputs.items():
            added = token if key == "input_ids" else torch.zeros_like(token)
            inputs[key] = torch.cat([value, added[None, None]], dim=1)
    assert answers(name, [conversation], 1) == [encoder.decode(inputs["input_ids"][0, start:]).strip()]


def test_the_models_own_sampling_is_not_used():
    model, _ = tiny("smolvlm")
    plain = answers("smolvlm", mixed(), 3)
    own = model.generation_config.to_dict()
    model.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=5.0, no_repeat_ngram_size=1)
    try:
        assert answers("smolvlm", mixed(), 3) == plain
    finally:
        model.generation_config.update(**own)


def test_modes_of_all_modules_come_back():
    model, _ = tiny("smolvlm")
    model.train()
    model.model.vision_model.eval()
    before = [module.training for module in model.modules()]
    answers("smolvlm", mixed()[:1], 1)
    assert [module.training for module in model.modules()] == before


def test_nothing_to_answer():
    assert answers("smolvlm", [], 4) == []


def test_prompts_are_padded_on_the_left_along_the_tokens():
    encoder = Encoder(build("mllama")[1])
    prompts = [encoder.prompt(ask("what is it? " * (i + 1), picture(i, (64, 64)))) for i in range(2)]
    mask = join_prompts(prompts, FAMILIES["mllama"], pad_id=0)["cross_attention_mask"]
    missing = len(prompts[1].input_ids) - len(prompts[0].input_ids)
    wanted = prompts[0].token_inputs["cross_attention_mask"]
    assert missing > 0 and not mask[0, :missing].any() and torch.equal(mask[0, missing:], wanted)


def test_what_the_tokenizer_returns_goes_along_the_tokens_whatever_its_name():
    """Such a name was once taken for media, and joined along the batch."""
    rows = [Example(input_ids=ids, labels=ids, token_inputs={"word_ids": ids}) for ids in (torch.arange(1, 3), torch.arange(1, 5))]
    batch = join_prompts(rows, Family(), pad_id=0)
    assert batch["word_ids"].tolist() == batch["input_ids"].tolist() == [[0, 0, 1, 2], [1, 2, 3, 4]]


def test_clips_among_images_are_asked_about_as_images():
    """GLM-4V: the types of a clip's tokens become an image's, of an image's and a text's stay."""
    found = subject("glm4v")
    rows = [found.encoder.prompt(found.about(kind)[0]) for kind in ("image", "video")]
    batch = join_prompts([*rows, found.encoder.prompt(found.odd["text alone"])], found.family, pad_id=0)
    assert set(batch["mm_token_type_ids"].unique().tolist()) == {0, 1} and "video_grid_thw" not in batch
    assert {int(row.token_inputs["mm_token_type_ids"].max()) for row in rows} == {1, 2}
