"""An output layer that reads a quarter of its bytes: every logit from int8 weights, the best of them once more from the whole weights.

    vlm = loading.load(folder, device, weights="quick")      # run.weights in params.yaml; see `VLM.lighten`

One word of a large vocabulary costs mostly the reading of this layer: at 150,000 words of 512 numbers, 310 of 400 MB. The `BEST` words by int8,
which are as many as a sampler draws from, are compared by their whole weights; only if int8 ranked the likeliest behind all of those could another be
said.
For a CPU: on CUDA, int8 weights are widened before each product and nothing is gained. Letters: B rows, E hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamingvlm.models.compression import Int8Linear

BEST = 64  # of a vocabulary that are computed exactly; as many as the released sampling draws from, and some more
PAYS = 16_384  # words from which on it is quicker than the plain layer at any width, for one row and for eight (128 to 1,024 numbers a word measured)


class QuickHead(nn.Module):
    """`whole`: the Linear whose logits these are. It stays as it is, so saving and training see what they always saw."""

    def __init__(self, whole: nn.Linear):
        super().__init__()
        self.whole, self.rough = whole, Int8Linear.of(whole)
        self.rough.pack()

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """x [B, E] -> logits [B, V]."""
        logits = self.rough(x)
        best = logits.topk(min(BEST, logits.shape[-1]), dim=-1).indices  # [B, BEST]
        exact = torch.einsum("be,bke->bk", x, self.whole.weight[best])
        if self.whole.bias is not None:
            exact = exact + self.whole.bias[best]
        return logits.scatter(-1, best, exact)
