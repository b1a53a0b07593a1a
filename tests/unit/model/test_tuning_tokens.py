"""New tokens: in the tokenizer, as rows near the mean, trained, saved and loaded."""

import pytest
import torch

from foveate.config.model import ModelSection
from foveate.config.tuning import TuningSection
from foveate.errors import ModelError
from foveate.model.tokens import add_tokens, grow
from foveate.model.tuning import apply_tuning
from tests import families

SECTION = ModelSection(add_tokens=["<loc>", "<row>"], add_special_tokens=["<seen>"])


def grown(family, section=SECTION, seed=0):
    model, processor = families.build(family)
    tokens = add_tokens(processor, section)
    grow(model, tokens, seed=seed)
    return model, processor, tokens


def test_the_tokenizer_gets_plain_and_special_tokens():
    _, processor, tokens = grown("smolvlm")
    tokenizer = processor.tokenizer
    ids = tokenizer("a <loc><seen>", add_special_tokens=False)["input_ids"]
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids[-2:]] == ["<loc>", "<seen>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a <loc>"
    assert tokens.ids == tuple(range(len(tokenizer) - 3, len(tokenizer)))


def test_a_token_that_is_there_is_a_note_and_nothing_is_added():
    model, processor = families.build("smolvlm")
    before = len(processor.tokenizer)
    tokens = add_tokens(processor, ModelSection(add_special_tokens=["<image>"]))
    assert (tokens.ids, len(processor.tokenizer)) == ((), before)
    assert tokens.notes == ("the tokenizer has <image> already: nothing is added for it",)
    weight = model.get_input_embeddings().weight.detach().clone()
    grow(model, tokens, seed=0)
    assert torch.equal(model.get_input_embeddings().weight, weight)


@pytest.mark.parametrize("family", ["smolvlm", "gemma3", "qwen2_5_vl", "mllama"])
def test_rows_start_near_the_mean_the_same_for_every_seed(family):
    plain, _ = families.build(family)
    old = plain.get_input_embeddings().weight.detach()
    model, processor, tokens = grown(family)
    new = model.get_input_embeddings().weight.detach()
    first = min(tokens.ids)
    assert torch.equal(new[:first], old[:first])
    rows = new[list(tokens.ids)]
    assert (rows - old[:first].mean(dim=0)).abs().max() < 0.5 * old[:first].std()
    assert not torch.equal(rows[0], rows[1])
    assert torch.equal(grown(family)[0].get_input_embeddings().weight, new)
    assert not torch.equal(grown(family, seed=1)[0].get_input_embeddings().weight, new)
    assert model.get_output_embeddings().weight.shape[0] > max(tokens.ids)


def test_a_matrix_with_room_keeps_its_size():
    model, processor = families.build("smolvlm")
    model.resize_token_embeddings(len(processor.tokenizer) + 40, mean_resizing=False)
    untouched = model.get_input_embeddings().weight[-1].detach().clone()
    tokens = add_tokens(processor, SECTION)
    grow(model, tokens, seed=0)
    assert model.get_input_embeddings().weight.shape[0] == tokens.vocabulary + 37
    assert torch.equal(model.get_input_embeddings().weight[-1], untouched)


@pytest.mark.parametrize("family", ["smolvlm", "gemma3"])
def test_lora_trains_the_new_rows_and_no_others(family):
    model, _, tokens = grown(family)
    old = model.get_input_embeddings().weight.detach().clone()
    tuned, _ = apply_tuning(model, TuningSection(rank=2), seed=0, new_tokens=tokens.ids)
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=1.0)
    ids = torch.tensor([[20, *tokens.ids, 21]])
    logits = tuned(input_ids=ids, token_type_ids=torch.zeros_like(ids)).logits if family == "gemma3" else tuned(input_ids=ids).logits
    torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
    optimizer.step()
    layer = tuned.get_base_model().get_input_embeddings().token_adapter
    merged = layer(torch.arange(len(old)))
    rows = torch.zeros(len(old), dtype=torch.bool)
    rows[list(tokens.ids)] = True
    scale = (merged[5] / old[5]).mean()  # Gemma scales its embeddings
    changed = ((merged / scale - old).abs() > 1e-6).any(dim=1)
    assert torch.equal(changed, rows)
    head = tuned.get_base_model().get_output_embeddings().token_adapter
    shared = head.trainable_tokens_delta is layer.trainable_tokens_delta
    assert shared is (family == "gemma3")  # the tied head follows, the other has rows of its own


def test_trained_whole_they_need_no_rows_of_their_own():
    model, _, tokens = grown("smolvlm")
    section = TuningSection(rank=2, also_full=["embeddings", "head"])
    tuned, _ = apply_tuning(model, section, seed=0, new_tokens=tokens.ids)
    assert not any("trainable_tokens" in name for name, _ in tuned.named_parameters())


def test_full_tuning_must_train_embeddings_and_an_untied_head():
    model, _, tokens = grown("smolvlm")
    with pytest.raises(ModelError, match="the head are not trained"):
        apply_tuning(model, TuningSection(type="full", parts=["language", "embeddings"]), seed=0, new_tokens=tokens.ids)
    apply_tuning(model, TuningSection(type="full", parts=["embeddings", "head"]), seed=0, new_tokens=tokens.ids)
    tied, _, tokens = grown("gemma3")
    apply_tuning(tied, TuningSection(type="full", parts=["embeddings"]), seed=0, new_tokens=tokens.ids)


def test_adapters_on_the_head_leave_no_room_for_rows():
    model, _, tokens = grown("smolvlm")
    with pytest.raises(ModelError, match="beside adapters on the head"):
        apply_tuning(model, TuningSection(parts=["language", "head"]), seed=0, new_tokens=tokens.ids)
