"""What transformers builds wrong is set right, whoever builds the model."""

import torch

from foveate.batching.collate import collate_padded
from foveate.encode.encoder import Encoder
from foveate.model import tiny
from foveate.model.families import family_of
from foveate.model.mend import mend, with_lists
from tests.unit.encode.talk import assistant, picture, talk, user


def test_attention_that_is_not_causal_is_not_called_causal():
    model, _ = tiny.build("phi4_multimodal")
    tower = model.model.embed_tokens_extend.image_embed.img_processor.eval()
    whole = torch.randn(1, 3, 448, 448)
    all_ones, others = torch.ones(1, 32, 32, dtype=torch.bool), torch.zeros(1, 32, 32, dtype=torch.bool)
    others[:, :8] = True
    with torch.no_grad():
        alone = tower(whole, patch_attention_mask=all_ones).last_hidden_state
        beside = tower(torch.cat([whole, whole]), patch_attention_mask=torch.cat([all_ones, others])).last_hidden_state[:1]
    torch.testing.assert_close(alone, beside, atol=1e-4, rtol=1e-4)


def test_a_part_without_an_attention_implementation_gets_the_models():
    from transformers import FunAsrNanoConfig, FunAsrNanoForConditionalGeneration

    text = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=64)
    sound = dict(num_mel_bins=4, hidden_size=16, num_attention_heads=2, intermediate_size=16, num_hidden_layers=2)
    adaptor = dict(hidden_size=32, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1, projector_hidden_size=16)
    config = FunAsrNanoConfig(
        audio_token_id=1,
        audio_config=dict(sound, num_timestamp_prediction_layers=1),
        adaptor_config=adaptor,
        text_config=dict(text, model_type="qwen3", head_dim=16),
    )
    model = mend(FunAsrNanoForConditionalGeneration(config))
    assert model.model.multi_modal_projector.config._attn_implementation == model.config._attn_implementation is not None


def test_a_model_that_counts_with_lists_gets_them():
    """Unlimited-OCR splits its tiles by `num_local_patches`, a list; a batch holds a tensor."""
    model, processor = tiny.build("unlimited_ocr")
    model.eval()
    asked = ([picture(30, 30)], [picture(130, 90), picture(20, 90)])
    encoder, family = Encoder(processor), family_of(model.config)
    examples = [encoder(talk(user(*pictures, "what?"), assistant("red"))) for pictures in asked]
    with torch.no_grad():
        padded = model(**collate_padded(examples, family, pad_id=encoder.pad_id).inputs).logits
        for i, example in enumerate(examples):
            single = model(**collate_padded([example], family, pad_id=encoder.pad_id).inputs).logits[0]
            assert torch.allclose(padded[i, : len(single)], single, atol=1e-4)
    given = {"a": torch.tensor([[1, 2]]), "b": [3], "c": torch.tensor([4])}
    assert with_lists(frozenset({"a", "b", "d"}), given) == {"a": [[1, 2]], "b": [3], "c": given["c"]}
