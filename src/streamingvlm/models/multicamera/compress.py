"""int8 and pruning of the multi-camera network. Its Linear layers (four fifths of the weights); convolutions and the GRU's stay float32.

A variant is named by what is done, with `_` between: `float32`, `int8` (dynamic: activations too, torch's CPU kernel), `int8w` (weight-only),
`prunedN` (N % of every row's weights are zero, those that matter least by Wanda's measure where `norms` are given), `mlpN` (N % of the neurons of
every gated MLP are gone: the recursion's net and the backbone's blocks), `pruned25_int8`, ...

    with compression.input_norms(network) as norms: network(frames, state)
    apply(network, "pruned25_int8", norms)
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.models import compression
from streamingvlm.models.compression import Int8Linear, linears, packed, unpacked
from streamingvlm.models.multicamera.network import CONFIG, Network, read_knobs

MANIFEST, WEIGHTS = "compressed.json", "compressed.safetensors"
VARIANT = re.compile(r"float32|(pruned\d\d|mlp\d\d)(_(pruned\d\d|mlp\d\d))*(_int8w?)?|int8w?")


def apply(network: Network, variant: str, norms: dict[str, Tensor] | None = None) -> None:
    """Turn a float network into the named variant, in place; int8 is not yet packed (`pack`). UserError for a name that says nothing."""
    if not VARIANT.fullmatch(variant):
        raise UserError(f"There is no compression `{variant}`: name float32, int8, int8w, pruned25, mlp25, or several with _ between, int8 last.")
    parts = variant.split("_")
    for part in sorted(parts, key=lambda part: part.startswith("mlp")):  # `norms` are of the widths before neurons leave
        if part.startswith("pruned"):
            compression.prune(network, int(part[-2:]) / 100, norms)
        if part.startswith("mlp"):
            compression.shrink(network, int(part[-2:]) / 100)
    if parts[-1] in {"int8", "int8w"}:
        compression.quantise(network)


def pack(network: Network) -> None:
    """Make int8 weights dynamic int8, for torch's CPU kernel. What can be saved is gone then."""
    for module in linears(network).values():
        if isinstance(module, Int8Linear):
            module.pack()


def write(network: Network, folder: Path, variant: str) -> int:
    """Write a network of that variant, not packed -> bytes of its weights."""
    tensors = {}
    for name, tensor in network.state_dict().items():
        sparse = "pruned" in variant and name.endswith(".weight") and tensor.ndim == 2
        tensors |= packed(name, tensor) if sparse else {name: tensor.contiguous()}
    content = save(tensors)
    files.write(folder / CONFIG, json.dumps(asdict(network.knobs), indent=1) + "\n")
    files.write(folder / WEIGHTS, content)
    files.write(folder / MANIFEST, json.dumps({"variant": variant}) + "\n")
    return len(content)


def read(folder: Path) -> Network:
    """A network written by `write`, ready to run on a CPU. UserError where there is none, or not a whole one."""
    try:
        variant = json.loads((folder / MANIFEST).read_text())["variant"]
        network, tensors = Network(read_knobs(folder)), unpacked(load_file(folder / WEIGHTS))
        _cut(network, tensors)
        if "int8" in variant:
            compression.quantise(network)
        network.load_state_dict(tensors)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} holds no whole compressed model; compress one again, or name another folder ({error}).") from error
    if variant.endswith("int8"):
        pack(network)
    return network


def _cut(network: Network, tensors: dict[str, Tensor]) -> None:
    """Make Linear layers that lost neurons as small as the weights to come."""
    for name, module in linears(network).items():
        shape = tensors[f"{name}.weight"].shape
        if shape != module.weight.shape:
            module.weight = nn.Parameter(module.weight.detach()[: shape[0], : shape[1]].clone())
            module.out_features, module.in_features = shape
