"""HEIC, and AVIF in its sibling's box: read with the optional package, upright exactly once; without it the run stops and says so."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from foveate.data.media import image_frame, image_size, open_image
from foveate.data.mixture import build_mixture
from foveate.data.scan import scan
from foveate.errors import DataError, FoveateError
from foveate.types import Image
from tests.unit.data.build import RULES, corner_picture, encoded, jsonl, noise_picture, section

heif = pytest.importorskip("pillow_heif")
heif.register_heif_opener()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright_exactly_once(orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    upright = corner_picture(64, 32)
    stored = upright.transpose(Pillow.Transpose(undo[orientation])) if orientation in undo else upright
    # As cameras do: the turn stands among the picture's own properties, which count, and again in its EXIF data, which does not.
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    image = Image(data=encoded(stored, "HEIF", exif=exif.tobytes(), quality=90))
    picture = open_image(image, rules=RULES)
    assert picture.size == (64, 32) and image_size(image, rules=RULES) == (32, 64)
    assert image_frame(image, rules=RULES).upright == (32, 64)
    pixels = np.asarray(picture).astype(int)
    assert np.abs(pixels[4, 4] - (255, 0, 0)).max() < 60 and np.abs(pixels[28, 60] - (0, 0, 255)).max() < 60


def test_a_turn_in_exif_alone_means_nothing():
    exif = Pillow.Exif()
    exif[0x0112] = 6
    image = Image(data=encoded(corner_picture(64, 32), "HEIF", exif=exif, quality=90))
    assert open_image(image, rules=RULES).size == (64, 32) and image_size(image, rules=RULES) == (32, 64)


def test_transparency_and_several_pictures():
    clear = Image(data=encoded(Pillow.new("RGBA", (32, 32), (255, 0, 0, 0)), "HEIF", quality=-1))
    assert np.asarray(open_image(clear, rules=RULES)).min() > 250
    two = heif.from_pillow(corner_picture(64, 32))
    two.add_from_pillow(noise_picture(16, 16))
    buffer = io.BytesIO()
    two.save(buffer, primary_index=0)
    image = Image(data=buffer.getvalue())
    assert open_image(image, rules=RULES).size == (64, 32) and image_size(image, rules=RULES) == (32, 64)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_cut_file_is_an_error(share):
    data = encoded(noise_picture(), "HEIF")
    with pytest.raises(DataError) as caught:
        open_image(Image(data=data[: int(len(data) * share)]), rules=RULES)
    assert caught.value.reason in ("image_truncated", "image_corrupt")


def test_without_the_package_the_run_stops_at_its_start(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(encoded(corner_picture(), "HEIF"))
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)  # what importlib does for a package known to be absent
    mixture = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", [{"image": "a.heic", "question": "?", "answer": "x"}]))])
    with pytest.raises(FoveateError, match="pillow-heif") as caught:
        list(scan(mixture, level="headers", rules=RULES))
    assert not isinstance(caught.value, DataError) and "foveate[heic]" in caught.value.fix
