"""The named sets, on Parquet files of their published schemas."""

from __future__ import annotations

import json

import pytest

from foveate.data.adapters.named import NAMED, named_set
from foveate.data.media import load_audio, open_image
from foveate.data.mixture import build_mixture
from foveate.errors import DataError
from tests.fixtures import schemas
from tests.unit.data.build import RULES, corner_picture, encoded, section, sound

PICTURES = [encoded(corner_picture(), "JPEG"), encoded(corner_picture(20, 10), "PNG")]


def test_medpix(tmp_path):
    mixture = build_mixture([section(use="medpix", path=schemas.medpix(tmp_path / "m.parquet", PICTURES))])
    assert mixture.describe() == ["medpix: 2 records, format medpix (columns question, answer, image_id)"]
    conversation = mixture.conversation(1)
    assert [message.text for message in conversation.messages] == ["Which plane is shown in image 1?", "Axial"]
    assert open_image(conversation.media[0], rules=RULES).size == (20, 10)
    assert conversation.origin.row == 1 and conversation.answers == ("Axial",)


def test_cord_v2(tmp_path):
    path = schemas.cord_v2(tmp_path / "c.parquet", PICTURES)
    conversation = build_mixture([section(use="cord_v2", path=path)]).conversation(0)
    assert json.loads(conversation.messages[1].text) == schemas.RECEIPT
    assert conversation.messages[0].text == "Read this receipt and write its contents as JSON."
    other = build_mixture([section(use="cord_v2", path=path, prompt="Parse.")]).conversation(0)
    assert other.messages[0].text == "Parse."


def test_common_voice_in_both_schemas(tmp_path):
    clips = [sound("MP3", rate_hz=32_000), sound("WAV")]
    turkish = build_mixture([section(use="common_voice_17", path=schemas.common_voice_tr(tmp_path / "tr.parquet", clips))])
    conversation = turkish.conversation(0)
    assert conversation.messages[1].text.startswith("Kosova") and conversation.messages[0].text == "Transcribe the speech."
    assert abs(len(load_audio(conversation.media[0], 16_000)) - 8_000) < 2_000
    mozilla = build_mixture([section(use="common_voice_17", path=schemas.common_voice(tmp_path / "en.parquet", clips))])
    assert mozilla.conversation(1).messages[1].text == "Sentence number 1."


def test_a_language_takes_the_repository_that_has_it():
    voice = NAMED["common_voice_17"]
    assert voice.repository(None) == ("ysdede/commonvoice_17_tr_fixed", None)
    assert voice.repository("tr") == ("fixie-ai/common_voice_17_0", "tr")


def test_an_unknown_set_names_the_nearest():
    with pytest.raises(DataError, match="did you mean 'cord_v2'"):
        named_set("cordv2")


@pytest.mark.parametrize(
    ("truth", "reason"),
    [("{", "bad_json"), ("[]", "missing_field"), ('{"meta": 1}', "missing_field"), ('{"gt_parse": null}', "missing_field")],
)
def test_a_receipt_without_a_parse(tmp_path, truth, reason):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"image": [{"bytes": PICTURES[0], "path": None}], "ground_truth": [truth]}), path)
    with pytest.raises(DataError) as caught:
        build_mixture([section(use="cord_v2", path=path)]).conversation(0)
    assert caught.value.reason == reason


def test_several_parses_train_on_the_first_and_accept_all(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "c.parquet"
    truth = json.dumps({"gt_parses": [{"answer": "a"}, {"answer": "b"}]})
    pq.write_table(pa.table({"image": [{"bytes": PICTURES[0], "path": None}], "ground_truth": [truth]}), path)
    conversation = build_mixture([section(use="cord_v2", path=path)]).conversation(0)
    assert conversation.messages[1].text == '{"answer": "a"}' and len(conversation.answers) == 2
