"""Compression of the network is real, and what is read back is what was written."""

from __future__ import annotations

import pytest
import torch

from streamingvlm.base.errors import UserError
from streamingvlm.models import compression
from streamingvlm.models.multicamera import compress
from streamingvlm.models.multicamera.network import Knobs, Network

FRAMES = torch.randint(0, 256, (2, 2, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def decide(network: Network) -> torch.Tensor:
    with torch.inference_mode():
        return network(FRAMES, network.memory.start(2))[0].anomalies


@pytest.mark.parametrize(("variant", "share"), [("float32", 1.0), ("int8", 0.5), ("int8w", 0.5), ("pruned25", 0.9), ("mlp25", 0.97),
                                                ("pruned30_int8", 0.5)])
def test_what_is_read_back_is_what_was_written_and_smaller(tmp_path, variant, share):
    network = Network(Knobs())
    plain, whole = decide(network), network.save(tmp_path / "plain")
    with compression.input_norms(network) as norms:
        decide(network)
    compress.apply(network, variant, norms)
    written = compress.write(network, tmp_path / variant, variant)
    assert written <= share * whole + 2000
    if variant.endswith("int8"):
        compress.pack(network)
    here = decide(network)
    torch.testing.assert_close(decide(compress.read(tmp_path / variant)), here)
    assert torch.equal(here, plain) == (variant == "float32")


def test_a_share_of_the_recursions_neurons_is_gone():
    network = Network(Knobs())
    compress.apply(network, "mlp25")
    assert network.memory.core.net[0].mlp.gate_proj.weight.shape == (144, 96)
    assert network.memory.core.net[0].mlp.down_proj.weight.shape == (96, 144)


@pytest.mark.parametrize("name", ["int4", "int8_pruned25", "pruned", ""])
def test_names_that_say_nothing(name):
    with pytest.raises(UserError, match="no compression"):
        compress.apply(Network(Knobs()), name)


def test_half_a_file_is_no_network(tmp_path):
    network = Network(Knobs())
    compress.write(network, tmp_path, "float32")
    (tmp_path / compress.WEIGHTS).write_bytes(b"half")
    with pytest.raises(UserError, match="no whole compressed model"):
        compress.read(tmp_path)
