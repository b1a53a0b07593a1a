"""Voxtral's processor, called as every other."""

import numpy as np
import pytest

from foveate.config.model import ModelSection
from foveate.encode.encoder import Encoder
from foveate.model import tiny
from foveate.model.load import load_config, load_processor, saved_processor
from tests.unit.encode.talk import assistant, sound, talk, user

WINDOW = 480_000  # samples, 375 tokens


@pytest.fixture(scope="module")
def processor():
    return tiny.processor("voxtral")


@pytest.mark.parametrize(("samples", "windows"), [(1600, 1), (WINDOW, 1), (WINDOW + 1, 2)])
def test_a_sound_is_as_many_windows_as_it_fills(processor, samples, windows):
    outputs = processor(text=["a [AUDIO] b"], audio=[np.zeros(samples, np.float32)], sampling_rate=16_000, return_tensors="pt")
    assert outputs["input_features"].shape == (windows, 32, 3000)
    assert int((outputs["input_ids"] == processor.audio_token_id).sum()) == 375 * windows


def test_sounds_without_a_place_are_refused(processor):
    with pytest.raises(ValueError, match="0 places"):
        processor(text=["a"], audio=[np.zeros(1600, np.float32)], return_tensors="pt")


def test_a_sound_longer_than_a_window_is_not_taken_for_one_that_is_cut(processor):
    conversation = talk(user(sound(WINDOW + 16_000), "what is said?"), assistant("yes"))
    encoder = Encoder(processor)
    assert encoder.length(conversation).tokens == len(encoder(conversation).input_ids)


def test_a_saved_processor_comes_back_with_its_call_and_a_template(processor, tmp_path):
    folder = tiny.save("voxtral", tmp_path)
    back = load_processor(ModelSection(id=str(folder)))
    conversation = talk(user(sound(), "what is said?"), assistant("yes"))
    assert Encoder(back)(conversation).input_ids.tolist() == Encoder(processor)(conversation).input_ids.tolist()
    assert '"VoxtralProcessor"' in (folder / "processor_config.json").read_text("utf-8")


def test_what_was_written_is_read_back_with_both_where_there_is_no_model(processor, tmp_path):
    """As an export looks at it, which may be adapters alone."""
    folder = tiny.save("voxtral", tmp_path)
    config = load_config(ModelSection(id=str(folder)))
    for name in ("config.json", "chat_template.jinja"):
        (folder / name).unlink()
    conversation = talk(user(sound(), "what is said?"), assistant("yes"))
    back = saved_processor(folder, config)
    assert Encoder(back)(conversation).input_ids.tolist() == Encoder(processor)(conversation).input_ids.tolist()


def test_a_checkpoint_without_a_template_gets_the_familys(processor, tmp_path):
    folder = tiny.save("voxtral", tmp_path)
    (folder / "chat_template.jinja").unlink()
    assert load_processor(ModelSection(id=str(folder))).chat_template == processor.chat_template
