"""The kernels for whole rows against the loop of SDPA calls, as far as a CPU runs them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from foveate.config.model import ModelSection
from foveate.errors import ModelError
from foveate.model import attention
from foveate.model.families import FAMILIES
from foveate.model.kernels import WholeRow, attend_flex, attend_varlen, takes
from foveate.model.layout import length_of

SEGMENTS = ((33, 9, 17, 1), 65, 65, 4, (130, 12, 5, 30), 3, 3)
CPU = torch.device("cpu")


def states(heads: int = 4, kv_heads: int = 2) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(1, count, length_of(SEGMENTS), 16, generator=draw) for count in (heads, kv_heads, kv_heads)]


def by_loop(drawn: list[Tensor], window: int | None, blocks: Tensor | None) -> Tensor:
    module = SimpleNamespace(num_key_value_groups=drawn[0].shape[1] // drawn[1].shape[1], is_causal=True)
    with attention.segments(SEGMENTS, None if blocks is None else blocks[None]):
        return attention._attend(module, *drawn, None, scaling=0.3, sliding_window=window)[0]


def some_blocks() -> Tensor:
    blocks = torch.zeros(length_of(SEGMENTS), dtype=torch.long)
    blocks[5:20] = blocks[70:80] = blocks[82:90] = 1
    return blocks


@pytest.mark.parametrize("blocks", [None, some_blocks()])
@pytest.mark.parametrize("window", [None, 7, 40])
@pytest.mark.parametrize("heads", [(4, 2), (3, 3)])
def test_flex_follows_the_loop(heads, window, blocks):
    drawn, row = states(*heads), WholeRow(SEGMENTS, blocks, CPU)
    with torch.no_grad():
        found = attend_flex(row, *drawn, window=window, scale=0.3)
    torch.testing.assert_close(found, by_loop(drawn, window, blocks), atol=2e-6, rtol=1e-5)


def lower_right(query, key, value, query_ends, key_ends, most_queries, most_keys, *, scale, window_size):
    """torch's varlen_attn by its documentation: [T, heads, d] each, causal from the lower right, with equally many heads."""
    out = []
    assert most_queries == int(query_ends.diff().max()) and most_keys == int(key_ends.diff().max())
    for i in range(len(query_ends) - 1):
        q = query[query_ends[i] : query_ends[i + 1]].transpose(0, 1)
        k, v = (states[key_ends[i] : key_ends[i + 1]].transpose(0, 1) for states in (key, value))
        offset = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1] - torch.arange(k.shape[1])[None]
        mask = (offset >= 0) & (offset <= (window_size[0] if window_size[0] >= 0 else 1 << 30))
        out.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(0, 1))
    return torch.cat(out)


@pytest.mark.parametrize("window", [None, 7, 40])
def test_varlen_is_given_the_same_rule(window):
    """The kernel itself runs on GPUs alone (tests/gpu): here a plain loop stands in its place, and the sequences are what is tested."""
    drawn, row = states(), WholeRow(SEGMENTS, None, CPU)
    found = attend_varlen(row, *drawn, window=window, scale=0.3, kernel=lower_right)
    torch.testing.assert_close(found, by_loop(drawn, window, None), atol=2e-6, rtol=1e-5)


def test_what_a_kernel_can_not_do_is_left_to_the_loop():
    query, _, value = states()
    row = WholeRow(SEGMENTS, None, CPU)
    half = query.bfloat16()
    assert takes("flex", row, query, value, {}) and takes("varlen", row, half, value, {})
    assert not takes("varlen", row, query, value, {})
    assert not takes("varlen", WholeRow(SEGMENTS, some_blocks(), CPU), half, value, {})
    assert not takes("flex", row, query, value[..., :8], {}) and not takes("flex", row, query, value, {"dropout": 0.1})


def test_a_kernel_without_gradients_here_is_not_chosen():
    assert "does not support backward" in attention.differs("flex", CPU, torch.float32)
    assert "_flash_attention_forward" in attention.differs("varlen", CPU, torch.bfloat16)


def test_a_cpu_takes_the_loop_and_says_so():
    kernel, why = attention.choose_kernel(ModelSection(), FAMILIES["qwen2_5_vl"], CPU, torch.float32)
    assert kernel == "segments" and "CPU" in why
    with pytest.raises(ModelError, match="flex computes no gradients on a CPU"):
        attention.choose_kernel(ModelSection(attention="flex"), FAMILIES["qwen2_5_vl"], CPU, torch.float32)
