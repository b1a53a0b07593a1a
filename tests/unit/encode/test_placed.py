"""Media that the processor puts in their place by itself (Florence-2), and what using a processor leaves behind in it."""

import io

import pytest
from PIL import Image as Pillow

from foveate.encode.encoder import Encoder
from foveate.errors import DataError
from foveate.model import tiny
from tests.unit.encode.talk import assistant, picture, sound, talk, trained, user


def opened(image):
    return Pillow.open(io.BytesIO(image.data))


@pytest.fixture(scope="module")
def florence():
    return tiny.processor("florence2")


@pytest.fixture(scope="module")
def encoder(florence):
    return Encoder(florence)


def test_an_image_without_a_placeholder_is_placed_by_the_processor(encoder):
    conversation = talk(user(picture(), "what is it?"), assistant("a red circle"))
    example = encoder(conversation)
    assert encoder.kinds == {"image"} and trained(encoder, example) == ["<s>a red circle</s>"]
    assert encoder.text(example.input_ids).startswith("<image>" * 5 + "<s>what is it?</s><s>a red circle</s>")
    assert encoder.length(conversation).tokens == len(example.input_ids)


def test_a_prompt_is_what_the_processor_makes_of_the_bare_question(encoder, florence):
    conversation = talk(user(picture(), "what is it?"), assistant("a red circle"))
    plain = florence(text=["what is it?"], images=[[opened(conversation.media[0])]], return_tensors="pt")
    assert encoder.prompt(conversation).input_ids.tolist() == plain["input_ids"][0].tolist()


def test_a_tasks_token_becomes_its_question(encoder):
    example = encoder(talk(user(picture(), "<OCR>"), assistant("stop")))
    assert "What is the text in the image?</s><s>stop" in encoder.text(example.input_ids)


def test_two_images_where_the_processor_has_one_place_are_refused(encoder):
    for call in (encoder, encoder.length):
        with pytest.raises(DataError, match="the record has 2") as caught:
            call(talk(user(picture(), picture(), "which?"), assistant("none")))
        assert caught.value.reason == "processor_refused"


def test_several_answers_are_refused_by_the_template(encoder):
    with pytest.raises(DataError, match="one question and one answer"):
        encoder(talk(user(picture(), "what?"), assistant("a"), user("and?"), assistant("b")))


def test_padding_that_a_processor_asked_for_does_not_stay_in_its_tokenizer():
    processor = tiny.processor("vibevoice_asr")
    encoder = Encoder(processor)
    encoder(talk(user(sound()), assistant("yes")))
    assert processor.tokenizer.backend_tokenizer.padding is None


def test_text_that_the_template_writes_about_a_sound_counts_as_the_processor_rewrites_it():
    encoder = Encoder(tiny.processor("vibevoice_asr"))
    for samples in (4000, 40_000, 200_000):  # 0.25 s to 12.5 s: the seconds have four and five characters
        conversation = talk(user(sound(samples)), assistant("yes"))
        assert encoder.length(conversation).tokens == len(encoder(conversation).input_ids)
