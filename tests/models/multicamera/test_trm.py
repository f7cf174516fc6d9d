"""The recursion is the published one, written again in numpy; what goes on into the next frame is what each carry promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera.nets import parameters, seeded
from streamingvlm.models.multicamera.trm import SIZES, TRM, Recursion


def build(**knobs) -> TRM:
    return seeded(0, lambda: TRM(Recursion(**{"width": 16, "hidden": 24, "carry": "reset"} | knobs))).double()


def norm(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def oracle(trm: TRM, x: np.ndarray, high: np.ndarray, low: np.ndarray) -> list[np.ndarray]:
    """From the paper's pseudocode: latent_recursion n times, deep_recursion T times, the pair handed on from one supervision step to the next."""
    weights = {name: value.detach().numpy() for name, value in trm.state_dict().items()}
    heads, size = trm.knobs.heads, trm.knobs.width

    def attend(x: np.ndarray, k: int) -> np.ndarray:
        qkv = (x @ weights[f"net.{k}.attention.qkv.weight"].T).reshape(len(x), x.shape[1], 3, heads, size // heads)
        out = np.zeros_like(qkv[:, :, 0])
        for row in range(len(x)):
            for head in range(heads):
                q, key, v = (qkv[row, :, part, head] for part in range(3))
                scores = np.exp(q @ key.T / np.sqrt(size // heads))
                out[row, :, head] = scores / scores.sum(-1, keepdims=True) @ v
        return out.reshape(x.shape) @ weights[f"net.{k}.attention.out.weight"].T

    def net(z: np.ndarray) -> np.ndarray:
        for k in range(trm.knobs.layers):
            if heads:
                z = norm(z + attend(z, k))
            gate = z @ weights[f"net.{k}.mlp.gate_proj.weight"].T
            z = norm(z + (gate / (1 + np.exp(-gate)) * (z @ weights[f"net.{k}.mlp.up_proj.weight"].T)) @ weights[f"net.{k}.mlp.down_proj.weight"].T)
        return z

    y, z, out = high, low, []
    for _ in range(trm.knobs.depth):
        for _ in range(trm.knobs.cycles):
            for _ in range(trm.knobs.inner):
                z = net(z + (y + x))
            y = net(y + z)
        out.append(y)
    return out


@pytest.mark.parametrize("heads", [0, 4])
@pytest.mark.parametrize(("inner", "cycles", "depth"), [(1, 1, 2), (3, 2, 3)])
def test_the_recursion_is_the_published_one(heads, inner, cycles, depth):
    trm = build(heads=heads, inner=inner, cycles=cycles, depth=depth)
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    answers, carry = trm(x, trm.start(3, 5))
    wanted = oracle(trm, x.numpy(), *(np.broadcast_to(getattr(trm, name).numpy(), x.shape) for name in ("high", "low")))
    assert len(answers) == depth and carry == {}
    for answer, right in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(answer.detach().numpy(), right, rtol=1e-9, atol=1e-9)


def test_only_the_last_cycle_learns_and_the_pair_is_handed_on_detached():
    """A gradient of the second answer reaches x through the second recursion's last cycle alone: as if all before it were a constant."""
    trm = build(cycles=2, depth=2)
    x = torch.randn(2, 1, 16, dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(trm(x, {})[0][1].sum(), x)[0]
    with torch.no_grad():
        high, low = trm._recursion(*(getattr(trm, name).expand_as(x) for name in ("high", "low")), x)
        low = trm._think(low + (high + x))
        high = trm._think(high + low)
    low = trm._think(low + (high + x))
    wanted = torch.autograd.grad(trm._think(high + low).sum(), x)[0]
    torch.testing.assert_close(found, wanted)


def test_initial_states_are_fixed():
    trm = build()
    assert {"high", "low"} <= dict(trm.named_buffers()).keys()
    assert not {"high", "low"} & dict(trm.named_parameters()).keys()
    assert not any(name.endswith("bias") for name in trm.state_dict())


def test_depth_zero_answers_with_its_input():
    trm, x = build(depth=0), torch.randn(2, 1, 16, dtype=torch.float64)
    assert torch.equal(trm(x, {})[0][0], x)


@pytest.mark.parametrize(("carry", "remembers"), [("reset", False), ("raw", True), ("leaky", True)])
def test_what_goes_on_into_the_next_frame(carry, remembers):
    trm, now = build(carry=carry), torch.randn(1, 1, 16, dtype=torch.float64)

    def after(first: torch.Tensor) -> torch.Tensor:
        start = {name: value.double() for name, value in trm.start(1).items()}
        return trm(now, trm(first, start)[1])[0][-1]

    assert torch.equal(after(now), after(-now)) != remembers


def test_a_leaky_memory_forgets_as_slowly_as_it_says():
    trm = build(carry="leaky", longest=100.0)
    keep = torch.sigmoid(trm.leak)
    torch.testing.assert_close(-1 / keep[[0, -1]].log(), torch.tensor([2.0, 100.0], dtype=torch.float64), rtol=1e-4, atol=0)
    _, carry = trm(torch.zeros(1, 1, 16, dtype=torch.float64), {"memory": torch.ones(1, 1, 16, dtype=torch.float64)})
    answer = trm(torch.zeros(1, 1, 16, dtype=torch.float64), {"memory": torch.ones(1, 1, 16, dtype=torch.float64)})[0][-1]
    torch.testing.assert_close(carry["memory"], keep + (1 - keep) * answer)


def test_the_sizes_are_the_claims():
    with torch.device("meta"):
        sizes = {name: parameters(torch.nn.ModuleList(TRM(knobs).net)) for name, knobs in SIZES.items()}
    assert sizes["tiny"] == 110_592
    assert sizes["57m"] == pytest.approx(56.6e6, rel=0.01) and sizes["89m"] == pytest.approx(88.5e6, rel=0.01)


@pytest.mark.parametrize("knobs", [{"carry": "some"}, {"depth": -1}, {"inner": 0}])
def test_knobs_that_mean_nothing(knobs):
    with pytest.raises(UserError, match="TRM"):
        Recursion(**knobs)
