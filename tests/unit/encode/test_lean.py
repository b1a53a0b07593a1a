"""The short way to Qwen-VL's patches: the processor's own pixels, verdicts and labels, on every size; else the processor keeps the work."""

from __future__ import annotations

import io
import pickle
from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from foveate.batching.collate import collate_padded
from foveate.encode.encoder import IGNORED, Encoder
from foveate.encode.lean import lean_images
from foveate.errors import DataError
from foveate.evaluate.generate import generate_answers
from foveate.evaluate.pixels import seen_by_model
from foveate.model.families import FAMILIES, positions_of
from foveate.model.pixels import take_bytes
from foveate.types import Image
from tests import families
from tests.unit.encode.talk import assistant, clip, encoder_of, talk, user

QWENS = ("qwen2_5_vl", "qwen3_vl", "qwen2_vl")
SIZES = [(1, 40), (5, 7), (28, 28), (33, 65), (64, 64), (100, 70), (127, 129), (250, 31), (640, 480), (1200, 300), (30, 3000), (1000, 1000)]


@lru_cache
def lean_encoder(name: str) -> Encoder:
    encoder = Encoder(families.processor(name), lean=True)
    assert encoder.pixel_form is not None and encoder.notes == ()
    return encoder


def photo(width: int, height: int, kind: str = "JPEG") -> Image:
    """Smooth colours, edges and noise."""
    draw = np.random.default_rng(width * 10_000 + height)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([127 + 90 * np.sin(x / (7 + i) + y / (11 - i)) for i in range(3)], -1) + draw.normal(0, 25, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = draw.integers(0, 256, 3)
    file = io.BytesIO()
    Pillow.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, kind)
    return Image(data=file.getvalue())


def question(*parts):
    return talk(user(*parts, "what <|im_end|> is it?"), assistant("a red circle"), user("sure?"), assistant("yes"))


@pytest.mark.parametrize("name", QWENS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixels_tokens_and_labels_are_those_of_the_processor(name, kind):
    plain, lean = encoder_of(name), lean_encoder(name)
    for width, height in SIZES:
        wanted, found = (encoder(question(photo(width, height, kind))) for encoder in (plain, lean))
        assert torch.equal(wanted.input_ids, found.input_ids) and torch.equal(wanted.labels, found.labels)
        assert wanted.token_inputs.keys() == found.token_inputs.keys() and wanted.media.keys() == found.media.keys()
        assert torch.equal(wanted.media["image_grid_thw"], found.media["image_grid_thw"])
        assert_pixels(wanted.media["pixel_values"], found.media["pixel_values"], lean)
        assert lean.length(question(photo(width, height, kind))) == plain.length(question(photo(width, height, kind)))


def assert_pixels(wanted: torch.Tensor, bytes_: torch.Tensor, encoder: Encoder) -> None:
    """Within 1/255 a pixel, and an eighth of the memory."""
    assert bytes_.dtype == torch.uint8 and bytes_.nbytes * 8 == wanted.nbytes
    found = encoder.pixel_form.widen(bytes_)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    apart = (found - wanted).abs().view(len(found), 3, -1).amax(dim=(0, 2)) * torch.tensor(encoder.pixel_form.std)
    assert float(apart.max()) <= 1.001


@pytest.mark.parametrize("name", QWENS)
def test_an_image_that_fits_is_equal_to_the_last_bit(name):
    size = 8 * families.processor(name).image_processor.patch_size
    wanted, found = (encoder(question(photo(size, size))).media["pixel_values"] for encoder in (encoder_of(name), lean_encoder(name)))
    assert torch.equal(lean_encoder(name).pixel_form.widen(found), wanted)


def test_several_images_and_a_clip():
    for name in QWENS:
        several = question(photo(64, 50), photo(30, 90), clip(), photo(64, 50))
        wanted, found = encoder_of(name)(several), lean_encoder(name)(several)
        assert torch.equal(wanted.input_ids, found.input_ids)
        assert torch.equal(wanted.media["pixel_values_videos"], found.media["pixel_values_videos"])
        assert_pixels(wanted.media["pixel_values"], found.media["pixel_values"], lean_encoder(name))


@pytest.mark.parametrize("size", [(2000, 2), (3, 700)])
def test_what_the_processor_refuses_is_refused_with_its_words(size):
    said = set()
    for encoder in (encoder_of("qwen2_5_vl"), lean_encoder("qwen2_5_vl")):
        for call in (encoder, encoder.length):
            with pytest.raises(DataError) as caught:
                call(question(photo(*size)))
            said.add((caught.value.reason, caught.value.problem.partition(": ")[2]))
    assert len(said) == 1


def test_pixel_limits_and_other_settings_hold():
    for settings in (dict(size={"shortest_edge": 56 * 56, "longest_edge": 84 * 84}), dict(image_mean=[0.1, 0.5, 0.9]), dict(patch_size=16)):
        processor = families.processor("qwen2_5_vl")
        images = processor.image_processor
        processor.image_processor = type(images).from_dict({**images.to_dict(), **settings})
        plain, lean = Encoder(processor), Encoder(processor, lean=True)
        for width, height in ((640, 480), (20, 20)):
            wanted, found = (encoder(question(photo(width, height))).media["pixel_values"] for encoder in (plain, lean))
            assert_pixels(wanted, found, lean)


@pytest.mark.parametrize("setting", [{"do_normalize": False}, {"resample": 2}, {"temporal_patch_size": 1}])
def test_settings_that_it_does_not_know_leave_the_work_to_the_processor(setting):
    processor = families.processor("qwen2_5_vl")
    images = processor.image_processor
    processor.image_processor = type(images).from_dict({**images.to_dict(), **setting})
    encoder = Encoder(processor, lean=True)
    assert encoder.pixel_form is None and next(iter(setting)) in encoder.notes[-1]
    assert encoder(question(photo(56, 56))).media["pixel_values"].dtype == torch.float32


def test_a_processor_that_makes_other_pixels_keeps_the_work():
    import transformers

    processor = families.processor("qwen2_5_vl")
    own = processor.image_processor
    own.resize = lambda images, **options: 255 - type(own).resize(own, images, **options)
    assert lean_images(processor)[0] is None and "/255 away" in lean_images(processor)[1]
    own.resize = lambda images, **options: type(own).resize(own, images[:0], **options)
    assert lean_images(processor)[0] is None
    processor.image_processor = transformers.Qwen2VLImageProcessorPil()
    assert lean_images(processor)[0] is None and "Qwen2VLImageProcessorPil" in lean_images(processor)[1]
    assert lean_images(families.processor("llava"))[0] is None
    assert lean_images(families.processor("qwen2_audio"))[0] is None


def test_the_given_processor_stays_as_it_was():
    processor = families.processor("qwen3_vl")
    own, settings = processor.image_processor, processor.image_processor.to_dict()
    Encoder(processor, lean=True)(question(photo(64, 64)))
    assert processor.image_processor is own and own.to_dict() == settings
    assert own([Pillow.new("RGB", (64, 64))], return_tensors="pt")["pixel_values"].dtype == torch.float32


def test_checkpoints_can_tell_and_copies_agree():
    plain, lean = encoder_of("qwen2_5_vl"), lean_encoder("qwen2_5_vl")
    copied = pickle.loads(pickle.dumps(lean))
    assert plain.fingerprint() != lean.fingerprint() == copied.fingerprint()
    one, two = (encoder(question(photo(90, 64))).media["pixel_values"] for encoder in (lean, copied))
    assert torch.equal(one, two) and two.dtype == torch.uint8


def test_a_dummy_is_bytes_too_since_it_shares_a_batch_with_them():
    encoder = lean_encoder("qwen2_5_vl")
    assert encoder.dummy(frozenset({"image"})).media["pixel_values"].dtype == torch.uint8
    batch = collate_padded([encoder(question(photo(64, 64))), encoder.dummy(frozenset({"image"}))], FAMILIES["qwen2_5_vl"], pad_id=0)
    assert batch.inputs["pixel_values"].dtype == torch.uint8


@pytest.mark.parametrize("name", QWENS)
def test_answers_are_the_same(name):
    model, processor = families.build(name)
    plain, lean = (Encoder(processor, positions=positions_of(model.config), lean=lean) for lean in (False, True))
    asked = [question(photo(64, 48)), question(photo(120, 60), photo(56, 56)), talk(user("hello"), assistant("yes"))]
    options = dict(max_new_tokens=6, batch_size=3, device="cpu")
    wanted = generate_answers(model, plain, asked, **options)
    take_bytes(model, "visual", width=lean.pixel_form.width, widen=lean.pixel_form.widen)
    assert generate_answers(model, lean, asked, **options) == wanted == generate_answers(model, plain, asked, **options)
    assert (lean(asked[0]).labels != IGNORED).any()


def test_the_preview_shows_the_bytes():
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48], pixels[:32, 48:], pixels[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    for name in QWENS:
        asked, processor = question(Image(data=file.getvalue()), photo(40, 40)), families.processor(name)
        shown = [seen_by_model(encoder(asked).media, processor) for encoder in (encoder_of(name), lean_encoder(name))]
        for wanted, found in zip(*shown, strict=True):
            assert found.caption == wanted.caption
            assert np.abs(np.asarray(found.picture, np.int16) - np.asarray(wanted.picture, np.int16)).max() <= 1
