"""Compiled blocks: the same losses for rows of any length, from graphs that are made once, recomputed or not."""

import pytest
import torch

from foveate.errors import ModelError
from foveate.model.attention import segments
from foveate.model.compiled import as_written, check_compiler, compile_blocks
from foveate.model.loss import loss_sum
from foveate.model.tuning import checkpoint_activations
from tests import families
from tests.unit.model.test_memory import LORA, batch_of, tuned


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def losses(model, batches) -> list[tuple[float, torch.Tensor]]:
    found = []
    for batch in batches:
        model.zero_grad()
        with segments(batch.segments):
            loss = loss_sum(model, batch, keeps_logits=True)
            loss.backward()
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        found.append((loss.item(), torch.cat(gradients)))
    return found


def test_compiled_blocks_give_the_same_losses_for_rows_of_any_length():
    model, processor = families.build("smolvlm")
    batches = [batch_of(model, processor, count) for count in (4, 2, 3)]
    model.model.text_model.layers = model.model.text_model.layers[:1]  # each layer compiles to the same graph
    model = tuned(model, LORA)
    checkpoint_activations(model, "full")
    plain = losses(model, batches)
    text = model.get_base_model().model.text_model
    assert compile_blocks(text) == 1
    torch._dynamo.utils.counters.clear()
    compiled = losses(model, batches[:1])
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled += losses(model, batches[1:])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0
    for (wanted, gradient), (found, other) in zip(plain, compiled, strict=True):
        assert found == pytest.approx(wanted, rel=1e-6)
        torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-5)
    with as_written(True):
        again = losses(model, batches[1:2])
    assert again[0][0] == plain[1][0]


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ModelError, match="no no-such-compiler.*variable CXX"):
        check_compiler(torch.device("cpu"))
    monkeypatch.setenv("CXX", "true")
    check_compiler(torch.device("cpu"))


def test_a_model_without_blocks_is_not_compiled():
    with pytest.raises(ModelError, match="no repeated blocks"):
        compile_blocks(torch.nn.Linear(2, 2))
