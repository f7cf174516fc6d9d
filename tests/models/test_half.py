"""A Linear of float16 weights: as exact as its weights are."""

from __future__ import annotations

import torch
from torch import nn

from streamingvlm.models.compression import HalfLinear


def test_weights_that_float16_holds_give_the_whole_product():
    torch.manual_seed(0)
    whole = nn.Linear(96, 40)
    with torch.no_grad():
        whole.weight.copy_(whole.weight.bfloat16())  # as released checkpoints are; no weight so small that float16 rounds it
        whole.weight[whole.weight.abs() < 2**-13] = 0
    x = torch.randn(2, 5, 96)
    torch.testing.assert_close(HalfLinear(whole)(x), whole(x), rtol=1e-5, atol=1e-5)
