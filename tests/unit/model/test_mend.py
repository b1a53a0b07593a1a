"""What transformers builds wrong is set right, whoever builds the model."""

import pytest
import torch

from foveate.config.tuning import TuningSection
from foveate.errors import ModelError
from foveate.model import tiny
from foveate.model.mend import mend
from foveate.model.tuning import apply_tuning


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


def test_a_part_that_the_model_runs_without_gradients_is_not_taken_for_training():
    model, _ = tiny.build("vibevoice_asr")
    for section in (TuningSection(type="lora", parts=["vision"]), TuningSection(type="full", parts=["vision", "language"])):
        with pytest.raises(ModelError, match="without gradients"):
            apply_tuning(model, section, seed=0)
