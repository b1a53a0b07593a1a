"""An encoder whose decoded media are kept gives the same examples, and chooses a clip's frames anew where its processor chooses others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foveate.config.media import MediaSection
from foveate.encode.encoder import Encoder
from foveate.types import Conversation, Message, Text, Video
from tests import families
from tests.unit.data.build import clip


def about(path: Path) -> Conversation:
    user = Message(role="user", parts=(Video(path=path), Text(text="what?")))
    return Conversation(messages=(user, Message(role="assistant", parts=(Text(text="a circle"),))))


@pytest.mark.parametrize("lean", [False, True])
def test_other_settings_of_the_processor_are_another_entry(tmp_path: Path, lean: bool) -> None:
    talk, rules = about(clip(tmp_path / "a.mp4", frames=16)), MediaSection(cache_decoded="disk", cache_folder=str(tmp_path / "kept"))
    found = []
    for fps in (1.0, 2.0, 1.0):
        processor = families.processor("qwen2_5_vl")
        processor.video_processor.fps = fps
        kept, plain = Encoder(processor, rules=rules, lean=lean), Encoder(processor, lean=lean)
        example, wanted = kept(talk), plain(talk)
        assert torch.equal(example.input_ids, wanted.input_ids)
        assert example.media.keys() == wanted.media.keys()
        assert all(torch.equal(tensor, wanted.media[name]) for name, tensor in example.media.items())
        assert plain.decoded is None
        found.append((len(example.input_ids), kept.decoded.found))
    assert found[0][0] < found[1][0]
    assert [hits for _, hits in found] == [0, 0, 1]
