"""Convolutions over single patches as products of matrices: the same numbers, and larger inputs are convolved as ever."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from foveate.model.pixels import multiply_patches


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv3d(3, 16, (2, 14, 14), stride=(2, 14, 14), bias=False), (37, 3, 2, 14, 14)),
        (nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4)), (5, 3, 4, 8, 4)),  # more than a patch
        (nn.Conv2d(3, 16, 14, stride=14), (9, 3, 14, 14)),
        (nn.Conv2d(3, 16, 14, stride=14), (2, 3, 28, 56)),
        (nn.Conv2d(4, 4, 3, padding=1), (2, 4, 3, 3)),  # the kernel's own size, but padded
        (nn.Conv2d(4, 4, 3, groups=2), (2, 4, 3, 3)),
    ],
)
def test_the_same_outputs_and_gradients(layer, shape):
    torch.manual_seed(0)
    model = nn.Sequential(copy.deepcopy(layer))
    multiply_patches(model)
    patches = torch.randn(shape)
    found = []
    for module in (layer, model):
        given = patches.clone().requires_grad_()
        out = module(given)
        out.square().sum().backward()
        found.append([out.detach(), given.grad, *(parameter.grad for parameter in module.parameters())])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-5)


def test_no_convolution_runs_where_a_product_does():
    model = nn.Sequential(nn.Conv3d(3, 16, (2, 14, 14), stride=(2, 14, 14), bias=False))
    multiply_patches(model)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(torch.randn(7, 3, 2, 14, 14)).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert "aten::mm" in names and not any("convolution" in name for name in names)
