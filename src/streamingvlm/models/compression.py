"""int8 weights and pruning for any torch module: what both models' compression is made of. Knows no file format and no model.

- `quantise`: every Linear becomes an `Int8Linear`, one scale per output row. As it is, it is weight-only; `pack`ed, dynamic int8 on a CPU.
- `HalfLinear`: float16 weights, for a CPU.
- `prune`: unstructured, row by row; `shrink`: whole neurons of every gated MLP, structured.
- `packed`, `unpacked`: a pruned matrix as its non-zeros and a bit mask, for a file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """A Linear with int8 weights [out, in] and one scale per output row.

    On CUDA the activations keep their dtype and the weights are widened to it for each product: half the memory, but five bytes moved for each weight
    where bfloat16 moves two, so slower unless a compiler fuses the two (torch's `_weight_int8pack_mm` is a plain float32 loop there, no match for a
    matrix unit). Scales are float32 and meet the product in float32 there. On a CPU the weights are packed once for
    torch's dynamic kernel (`quantized::linear_dynamic`), which quantises the activations of each call to int8 too."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.packed = None

    @classmethod
    def of(cls, linear: nn.Linear) -> Int8Linear:
        whole = linear.weight.detach().float()  # in half precision, 64 to 127 has steps of a half before it is rounded
        scale = whole.abs().amax(dim=1).clamp(min=1e-12) / 127
        weight = (whole / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        return cls(weight, scale, None if linear.bias is None else linear.bias.detach())

    def pack(self) -> None:
        """Hand the weights over to the CPU kernel. What can be saved is gone then: `weight` is left empty."""
        zero_points = torch.zeros(len(self.scale), dtype=torch.long)
        with warnings.catch_warnings():  # torch announces the end of quantised tensors; the pinned version has them, and no other fast path
            warnings.simplefilter("ignore", UserWarning)
            weight = torch._make_per_channel_quantized_tensor(self.weight, self.scale.double(), zero_points, 0)
        bias = None if self.bias is None else self.bias.float()
        self.packed = torch.ops.quantized.linear_prepack(weight, bias)
        self.packed_bytes = self.weight.numel()
        self.weight = self.weight[:0]

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if self.packed is not None:
            out = torch.ops.quantized.linear_dynamic(rows.float(), self.packed, True).to(x.dtype)
        else:
            out = ((nn.functional.linear(rows, self.weight.to(x.dtype)).float() * self.scale).to(x.dtype) if x.is_cuda
                   else torch._weight_int8pack_mm(rows, self.weight, self.scale.to(x.dtype)))
            out = out if self.bias is None else out + self.bias.to(x.dtype)
        return out.view(*x.shape[:-1], -1)


class HalfLinear(nn.Module):
    """A Linear with float16 weights, for a CPU: products and sums stay float32, weights are widened in registers (torch's fbgemm kernel).

    Half the bytes a word reads. Weights that were trained in bfloat16 lose nothing but the smallest; any other a part in 2,000 of each at most."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach().float(), bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).float()
        return torch.ops.quantized.linear_dynamic_fp16(rows, self.packed).to(x.dtype).view(*x.shape[:-1], -1)


def linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every Linear layer by name, int8 or not."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Int8Linear)}


@contextmanager
def input_norms(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """While it lasts, gather {Linear's name: L2 norm of each of its inputs [in], over all that goes through the model}."""
    norms: dict[str, Tensor] = {}

    def watch(name: str):
        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            new = inputs[0].detach().float().reshape(-1, inputs[0].shape[-1]).norm(dim=0)
            norms[name] = torch.hypot(norms[name], new) if name in norms else new
        return see

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in linears(model).items()]
    try:
        yield norms
    finally:
        for hook in hooks:
            hook.remove()


def weighed(name: str, module: nn.Module, norms: dict[str, Tensor] | None) -> Tensor:
    """How much each weight [out, in] of a Linear matters: its size, times the norm of what it meets if that is known (Wanda)."""
    return module.weight.abs() if norms is None else module.weight.abs() * norms[name].to(module.weight.device)


@torch.no_grad()
def prune(model: nn.Module, amount: float, norms: dict[str, Tensor] | None = None) -> None:
    """Set the `amount` (0..1) of every Linear row's weights that matter least to zero, for good."""
    for name, module in linears(model).items():
        module.weight.scatter_(1, weighed(name, module, norms).argsort(dim=1, stable=True)[:, : round(amount * module.in_features)], 0)


@torch.no_grad()
def shrink(model: nn.Module, amount: float) -> None:
    """Remove from every gated MLP the `amount` (0..1) of its neurons whose weights in and out are smallest (product of their norms), for good."""
    for mlp in [module for module in model.modules() if hasattr(module, "gate_proj")]:
        weight = mlp.gate_proj.weight.norm(dim=1) * mlp.up_proj.weight.norm(dim=1) * mlp.down_proj.weight.norm(dim=0)  # [neurons]
        stays = weight.argsort(descending=True)[: len(weight) - round(amount * len(weight))].sort().values
        for linear in (mlp.gate_proj, mlp.up_proj):
            linear.weight, linear.out_features = nn.Parameter(linear.weight[stays]), len(stays)
            linear.bias = None if linear.bias is None else nn.Parameter(linear.bias[stays])
        mlp.down_proj.weight, mlp.down_proj.in_features = nn.Parameter(mlp.down_proj.weight[:, stays]), len(stays)


def quantise(model: nn.Module) -> None:
    """Replace every Linear by an `Int8Linear`."""
    for name, module in linears(model).items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, Int8Linear.of(module))


def zeros(model: nn.Module) -> float:
    """Share of the Linear weights that are exactly zero; ask before they are packed."""
    weights = [module.weight for module in linears(model).values()]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def packed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A matrix with many zeros as its non-zeros, a bit mask and its shape; as it is where that would not be smaller."""
    mask = tensor != 0
    bits = torch.nn.functional.pad(mask.flatten().to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    bits = (bits << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)
    values = tensor[mask]
    if values.numel() * values.element_size() + bits.numel() >= tensor.numel() * tensor.element_size():
        return {name: tensor.contiguous()}
    return {f"{name}:values": values, f"{name}:bits": bits, f"{name}:shape": torch.tensor(tensor.shape)}


def unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` made, as it was."""
    out = {}
    for name, tensor in tensors.items():
        base, _, part = name.partition(":")
        if not part:
            out[name] = tensor
        elif part == "values":
            shape = tensors[f"{base}:shape"].tolist()
            bits = tensors[f"{base}:bits"][:, None] >> torch.arange(8, dtype=torch.uint8) & 1
            dense = torch.zeros(shape, dtype=tensor.dtype)
            dense[bits.flatten()[: dense.numel()].view(shape).bool()] = tensor
            out[base] = dense
    return out
