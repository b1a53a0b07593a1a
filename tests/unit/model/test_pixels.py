"""Media reach the model in the type of its weights. Bytes: tests/unit/batching/test_bytes.py."""

import pytest
import torch

from foveate.batching.collate import collate_padded
from foveate.encode.encoder import Encoder
from foveate.evaluate.generate import generate_answers
from foveate.model.families import FAMILIES, keeps_logits
from foveate.model.loss import loss_sum
from foveate.model.tiny import build
from tests.conformance.subject import medium
from tests.unit.encode.talk import assistant, talk, user


@pytest.mark.parametrize(("name", "kind"), [("llama4", "image"), ("chameleon", "image"), ("muse_spark", "audio"), ("gemma3", "image")])
def test_weights_of_half_precision_get_media_of_their_type(name, kind):
    """Pixels and samples are encoded in float32, and not every tower casts them."""
    model, processor = build(name)
    encoder, model = Encoder(processor), model.bfloat16()
    chat = talk(user(medium(kind, 0, 24_000), "what?"), assistant("one"))
    batch = collate_padded([encoder(chat)], FAMILIES[name], pad_id=0)
    with torch.no_grad():
        assert float(loss_sum(model, batch, keeps_logits=keeps_logits(model))) > 0
    assert len(generate_answers(model, encoder, [chat], max_new_tokens=2, batch_size=1, device="cpu")) == 1
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(loss_sum(model.float(), batch, keeps_logits=keeps_logits(model))) > 0
