"""Every family through one encoder: exact lengths, prompts that are prefixes, outputs that its model takes. Needs torch."""

import pickle
import random

import pytest
import torch

from foveate.batching.collate import collate_padded, join_media
from foveate.encode.encoder import IGNORED, Encoder
from foveate.errors import DataError, ModelError, TemplateError
from foveate.model.families import family_of, positions_of
from tests import families
from tests.unit.encode.talk import (
    assistant,
    clip,
    encoder_of,
    encoder_with,
    medium,
    picture,
    sound,
    talk,
    trained,
    user,
)

VISUAL = [name for name in families.NAMES if name != "qwen2_audio"]
SIZES = [(1, 40), (28, 28), (33, 65), (64, 64), (100, 70), (70, 100), (127, 129), (250, 31), (640, 480), (1200, 300)]


@pytest.mark.parametrize("name", [*families.NAMES, *families.EXTRA_NAMES])
def test_several_turns_and_media(name):
    encoder = encoder_of(name)
    part = medium(name)
    example = encoder(talk(user(part, "what is it?"), assistant("a red circle"), user("and", part, part), assistant("two")))
    said = trained(encoder, example)
    assert [text.lstrip().split("<")[0] for text in said] == ["a red circle", "two"]
    assert example.labels[0] == IGNORED and example.kinds == {"audio" if name == "qwen2_audio" else "image"}
    assert all(values.shape == example.input_ids.shape for values in example.token_inputs.values())


@pytest.mark.parametrize("name", VISUAL)
def test_lengths_from_headers_are_exact_for_every_size(name):
    encoder = encoder_of(name)
    for width, height in SIZES:
        for count in (1, 2):
            conversation = talk(user(*[picture(width, height)] * count, "what is it?"), assistant("a red circle"))
            try:
                found = len(encoder(conversation).input_ids)
            except DataError:
                continue  # refused by the processor, e.g. too narrow
            assert encoder.length(conversation).tokens == found, (width, height, count)


def test_lengths_of_mixed_sizes_and_shrunk_images_are_exact():
    for name in VISUAL:
        encoder = encoder_of(name)
        several = [picture(width, height) for width, height in SIZES[1:6]]
        conversation = talk(user(*several, "which?"), assistant("none"), user(picture(90, 90)), assistant("x"))
        assert encoder.length(conversation).tokens == len(encoder(conversation).input_ids)


@pytest.mark.parametrize("samples", [400, 1601, 16000, 40001, 64000])
def test_lengths_of_sounds_are_exact(samples):
    encoder = encoder_of("qwen2_audio")
    conversation = talk(user(sound(samples), "say it"), assistant("hello"))
    length = encoder.length(conversation)
    assert length.tokens == len(encoder(conversation).input_ids) and length.kinds == {"audio"}


def test_lengths_of_many_sounds_are_exact_though_few_are_tried():
    encoder, draw = Encoder(families.processor("qwen2_audio")), random.Random(1)
    for samples in [draw.randint(400, 8000) for _ in range(120)]:
        conversation = talk(user(sound(samples), "say it"), assistant("hello"))
        assert encoder.length(conversation).tokens == len(encoder(conversation).input_ids)


def test_a_sound_that_the_model_would_not_hear_to_the_end_is_quarantined():
    encoder = encoder_of("qwen2_audio")
    for call in (encoder, encoder.length):
        with pytest.raises(DataError, match=r"4\.5 s, the model hears 4 s") as caught:
            call(talk(user(sound(72000), "say it"), assistant("hello")))
        assert caught.value.reason == "audio_too_long"


@pytest.mark.parametrize("name", ["smolvlm", "qwen2_5_vl", "qwen3_vl", "llava_onevision"])
def test_clips(name):
    encoder = encoder_of(name)
    conversation = talk(user(clip(), "what happens?"), assistant("it grows lighter"))
    example = encoder(conversation)
    assert encoder.length(conversation).tokens == len(example.input_ids)
    assert "video" in example.kinds and "lighter" in trained(encoder, example)[0]


@pytest.mark.parametrize("name", families.NAMES)
def test_text_alone(name):
    encoder = encoder_of(name)
    conversation = talk(user("hello"), assistant("yes"))
    example = encoder(conversation)
    assert encoder.length(conversation).tokens == len(example.input_ids)
    assert not example.kinds and not example.media


@pytest.mark.parametrize("name", families.NAMES)
def test_prompts_are_what_transformers_asks_with(name):
    encoder, part = encoder_of(name), medium(name)
    conversation = talk(user(part, "what is it?"), assistant("a red circle"), user("sure?"), assistant("yes"))
    prompt = encoder.prompt(conversation)
    example = encoder(conversation)
    kind = "audio" if name == "qwen2_audio" else "image"
    chat = [
        {"role": "user", "content": [{"type": kind}, {"type": "text", "text": "what is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a red circle"}]},
        {"role": "user", "content": [{"type": "text", "text": "sure?"}]},
    ]
    processor = families.processor(name)
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    loaded = encoder._inputs.load(conversation)
    bos = processor.tokenizer.bos_token
    options = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
    wanted = processor(text=[text], return_tensors="pt", **options, **loaded)
    assert torch.equal(prompt.input_ids, wanted["input_ids"][0]) and bool((prompt.labels == IGNORED).all())
    assert {"input_ids", *prompt.token_inputs, *prompt.media} == set(wanted) - {"attention_mask"}
    assert (prompt.kinds, prompt.origin) == ({kind}, conversation.origin)
    if name != "llava_onevision":  # its stock template asks with other words than it trains with, which a note says
        count = len(prompt.input_ids)
        assert torch.equal(example.input_ids[:count], prompt.input_ids)
        assert example.labels[count] != IGNORED and example.labels[count - 1] == IGNORED
    assert bool(encoder.notes) == (name == "llava_onevision")


@pytest.mark.parametrize("name", [*families.NAMES, *families.EXTRA_NAMES])
def test_the_model_takes_what_is_encoded(name):
    model, processor = families.build(name)
    encoder = Encoder(processor, positions=positions_of(model.config))
    family, part = family_of(model.config), medium(name)
    examples = [
        encoder(talk(user(part, "what is it?"), assistant("red"))),
        encoder(talk(user(part, part, "and?"), assistant("blue"), user("so?"), assistant("no"))),
        encoder.dummy(encoder.kinds - {"video"}),
    ]
    batch = collate_padded(examples, family, pad_id=encoder.pad_id)
    assert torch.isfinite(model(**batch.inputs, labels=batch.labels).loss)
    if family.mrope:
        assert all(example.position_ids.shape == (3, len(example.input_ids)) for example in examples)


@pytest.mark.parametrize("name", families.NAMES)
def test_dummies_are_small_and_have_no_label(name):
    encoder = encoder_of(name)
    for kind in encoder.kinds:
        dummy = encoder.dummy(frozenset({kind}))
        assert dummy.kinds == {kind} and dummy.media and bool((dummy.labels == IGNORED).all())
        assert torch.equal(dummy.input_ids, encoder.dummy(frozenset({kind})).input_ids)
    with pytest.raises(ModelError, match="takes no"):
        encoder_of("gemma3").dummy(frozenset({"audio"}))


def test_media_that_the_model_does_not_take_are_quarantined():
    with pytest.raises(DataError, match="audio input") as caught:
        encoder_of("qwen2_5_vl")(talk(user(sound(), "?"), assistant("x")))
    assert caught.value.reason == "media_not_supported"


def test_an_image_that_the_processor_refuses_is_quarantined():
    encoder = encoder_of("qwen2_5_vl")
    for call in (encoder, encoder.length):
        with pytest.raises(DataError, match="aspect ratio") as caught:
            call(talk(user(picture(2000, 2), "?"), assistant("x")))
        assert caught.value.reason == "processor_refused"


def test_a_template_that_shows_too_few_images():
    shown = families.chatml("<|vision_start|><|image_pad|><|vision_end|>")
    template = shown.replace("== 'image' %}", "== 'image' and loop.index < 3 %}", 1)
    encoder = encoder_with(template)
    encoder(talk(user(picture(), picture(), "?"), assistant("x")))
    for call in (encoder, encoder.length):
        with pytest.raises(TemplateError, match=r"writes 2 places .* for 3 image inputs"):
            call(talk(user(picture(), picture(), picture(), "?"), assistant("x")))


def test_a_template_without_a_place_for_images():
    encoder = encoder_with(families.chatml().replace("m['content'] is string", "false"))
    assert not encoder.kinds and not encoder.notes
    encoder(talk(user("a"), assistant("b")))
    with pytest.raises(TemplateError, match="no place for image"):
        encoder(talk(user(picture(), "?"), assistant("x")))


@pytest.mark.parametrize("name", families.NAMES)
def test_pickling_keeps_everything(name):
    encoder = encoder_of(name)
    copied = pickle.loads(pickle.dumps(encoder))
    conversation = talk(user(medium(name), "what <|im_end|> is it?"), assistant("a red circle"))
    one, two = encoder(conversation), copied(conversation)
    assert torch.equal(one.input_ids, two.input_ids) and torch.equal(one.labels, two.labels)
    assert all(torch.equal(one.media[key], two.media[key]) for key in one.media)
    assert encoder.fingerprint() == copied.fingerprint()


def test_fingerprints_follow_template_and_settings():
    prints = {encoder_of(name).fingerprint() for name in families.NAMES}
    assert len(prints) == len(families.NAMES)
    assert encoder_with(families.chatml("<image>")).fingerprint() not in prints
    processor = families.processor("smolvlm")
    assert Encoder(processor).fingerprint() == encoder_of("smolvlm").fingerprint()
    processor.image_processor.size = {"longest_edge": 128}
    assert Encoder(processor).fingerprint() != encoder_of("smolvlm").fingerprint()


def test_the_given_processor_is_left_alone():
    processor = families.processor("qwen2_5_vl")
    kind, template = type(processor.tokenizer), processor.chat_template
    encoder = Encoder(processor)
    encoder(talk(user(picture(), "a"), assistant("b")))
    assert type(processor.tokenizer) is kind and processor.chat_template == template


def test_media_of_several_conversations_join():
    model_family = {"smolvlm": "smolvlm", "llava_onevision": "llava_onevision"}
    for name in model_family:
        encoder = encoder_of(name)
        one = encoder(talk(user(picture(64, 130), "a"), assistant("b")))
        two = encoder(talk(user(picture(), picture(200, 64), "a"), assistant("b")))
        model, _ = families.build(name)
        joined = join_media([one, two], family_of(model.config))
        assert joined["pixel_values"].ndim == 5


def test_images_in_one_list_where_the_processor_takes_no_other():
    """GOT-OCR's refuses a list for each conversation, and a text without an image."""
    encoder = Encoder(families.processor("got_ocr2"))
    conversation = talk(user(picture(40, 60), picture(60, 40), "what?"), assistant("red"))
    example = encoder(conversation)
    assert example.media["pixel_values"].shape[0] == 2
    assert encoder.length(conversation).tokens == len(example.input_ids)
    with pytest.raises(DataError, match="must provide valid `images`"):
        encoder(talk(user("what?"), assistant("red")))


def test_pixels_of_half_precision_are_widened():
    example = Encoder(families.processor("llama4"))(talk(user(picture(), "what?"), assistant("one")))
    assert example.media["pixel_values"].dtype == torch.float32


@pytest.mark.parametrize("name", ["muse_glimmer", "smolvlm"])
def test_clips_bring_their_times(name):
    """Muse's processor looks for what it returns about a clip; nothing of that becomes an input of the model."""
    model, made = families.build(name)
    example = Encoder(made)(talk(user(clip(), "what?"), assistant("one")))
    assert example.kinds == {"video"} and "video_metadata" not in example.media
    with torch.no_grad():
        batch = collate_padded([example], family_of(model.config), pad_id=0)
        assert bool(model(**batch.inputs).logits.isfinite().all())
