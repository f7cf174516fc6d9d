"""int8 weights (fewer bytes on disk and in memory) and pruning. For any Qwen2.5-VL, on CPU or CUDA.

A variant is named by what is done, with `_` between: `float32` (nothing), `int8`, `pruned25`, `mlp25`, `pruned25_int8`, ...
- int8: one scale per output row, on torch's own kernels, chosen per device by measurement (`Int8Linear`).
- prunedN: unstructured: N % of every row's weights are zero, those that matter least. A weight matters as its size times the norm of the input it
  meets on a calibration stream (Wanda, arXiv 2306.11695); without `norms` as its size. Zeros take the same room and the same time in a dense
  tensor, so only the file is smaller: a pruned weight is stored as its non-zeros and a bit mask.
- sparse24: two of every four weights along a row are zero (the smaller ones). Matrix units of NVIDIA GPUs since Ampere multiply such a matrix in half
  the time: there it is held as torch's semi-structured tensor; anywhere else it is dense and as slow as before.
- mlpN: structured: the N % of every MLP's neurons that matter least are gone. What is left is a smaller dense model, everywhere and in time.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensor
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm.base.config import VARIANT, VARIANTS
from streamingvlm.base.errors import UserError
from streamingvlm.models.qwen25.vlm import VLM

MANIFEST = "compressed.json"
WEIGHTS = "compressed.safetensors"


class Int8Linear(nn.Module):
    """A Linear with int8 weights [out, in] and one scale per output row.

    On CUDA the activations keep their dtype and the weights are widened to it for each product: half the memory, no gain in speed unless a compiler
    fuses the two (torch's `_weight_int8pack_mm` is a plain float32 loop there, no match for a matrix unit). On a CPU the weights are packed once for
    torch's dynamic kernel (`quantized::linear_dynamic`), which quantises the activations of each call to int8 too."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.packed = None

    @classmethod
    def of(cls, linear: nn.Linear) -> Int8Linear:
        scale = linear.weight.detach().abs().amax(dim=1).clamp(min=1e-12) / 127
        weight = (linear.weight.detach() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
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
            out = (nn.functional.linear(rows, self.weight.to(x.dtype)) * self.scale.to(x.dtype) if x.is_cuda
                   else torch._weight_int8pack_mm(rows, self.weight, self.scale.to(x.dtype)))
            out = out if self.bias is None else out + self.bias.to(x.dtype)
        return out.view(*x.shape[:-1], -1)


def apply(vlm: VLM, variant: str, norms: dict[str, Tensor] | None = None) -> None:
    """Turn a float model into the named variant, in place: pruned first (`norms`: see `input_norms`), quantised last. UserError for a name that says
    nothing."""
    if not VARIANT.fullmatch(variant):
        raise UserError(f"There is no compression `{variant}`: {VARIANTS}.")
    for part in sorted(variant.split("_"), key=lambda part: part.startswith("mlp")):  # `norms` are of the widths before neurons leave
        if part.startswith("pruned"):
            prune(vlm, int(part[-2:]) / 100, norms)
        if part == "sparse24":
            prune_two_of_four(vlm, norms)
        if part.startswith("mlp"):
            shrink(vlm, int(part[-2:]) / 100)
    if "int8" in variant:
        quantise(vlm)


def linears(hf: nn.Module) -> dict[str, nn.Module]:
    """The Linear layers that are compressed: all of the decoder's and the vision blocks'."""
    return {name: m for name, m in hf.named_modules() if isinstance(m, nn.Linear | Int8Linear)}


@contextmanager
def input_norms(vlm: VLM) -> Iterator[dict[str, Tensor]]:
    """While it lasts, gather {Linear's name: L2 norm of each of its inputs [in], over all that goes through the model}."""
    norms: dict[str, Tensor] = {}

    def watch(name: str):
        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            new = inputs[0].detach().float().reshape(-1, inputs[0].shape[-1]).norm(dim=0)
            norms[name] = torch.hypot(norms[name], new) if name in norms else new
        return see

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in linears(vlm.hf).items()]
    try:
        yield norms
    finally:
        for hook in hooks:
            hook.remove()


def _weighed(name: str, module: nn.Module, norms: dict[str, Tensor] | None) -> Tensor:
    """How much each weight [out, in] of a Linear matters."""
    return module.weight.abs() if norms is None else module.weight.abs() * norms[name].to(module.weight.device)


@torch.no_grad()
def prune(vlm: VLM, amount: float, norms: dict[str, Tensor] | None = None) -> None:
    """Set the `amount` (0..1) of every Linear row's weights that matter least to zero, for good."""
    for name, module in linears(vlm.hf).items():
        module.weight.scatter_(1, _weighed(name, module, norms).argsort(dim=1, stable=True)[:, : round(amount * module.in_features)], 0)


@torch.no_grad()
def prune_two_of_four(vlm: VLM, norms: dict[str, Tensor] | None = None) -> None:
    """Set the two that matter least of every four neighbouring weights of a row to zero, for good. Rows that four doesn't divide stay whole."""
    for name, module in linears(vlm.hf).items():
        if module.in_features % 4 == 0:
            order = _weighed(name, module, norms).view(module.out_features, -1, 4).argsort(dim=2, stable=True)
            module.weight.view(module.out_features, -1, 4).scatter_(2, order[:, :, :2], 0)


def semi_structured(vlm: VLM) -> None:
    """Hold 2:4 weights in the form that a GPU's sparse matrix units take: layers whose rows come in 32s and columns in 64s, as torch wants it."""
    for module in linears(vlm.hf).values():
        if module.out_features % 32 == 0 and module.in_features % 64 == 0:
            module.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(module.weight.detach()), requires_grad=False)


@torch.no_grad()
def shrink(vlm: VLM, amount: float) -> None:
    """Remove from every MLP the `amount` (0..1) of its neurons whose weights in and out are smallest (product of their norms), for good."""
    mlps = [m for m in vlm.hf.modules() if hasattr(m, "gate_proj")]
    for mlp in mlps:
        weight = mlp.gate_proj.weight.norm(dim=1) * mlp.up_proj.weight.norm(dim=1) * mlp.down_proj.weight.norm(dim=0)  # [neurons]
        stays = weight.argsort(descending=True)[: len(weight) - round(amount * len(weight))].sort().values
        for linear in (mlp.gate_proj, mlp.up_proj):
            linear.weight, linear.out_features = nn.Parameter(linear.weight[stays]), len(stays)
            linear.bias = None if linear.bias is None else nn.Parameter(linear.bias[stays])
        mlp.down_proj.weight, mlp.down_proj.in_features = nn.Parameter(mlp.down_proj.weight[:, stays]), len(stays)
    for part, tower in ((vlm.hf.config.text_config, vlm.hf.model.language_model), (vlm.hf.config.vision_config, vlm.hf.model.visual)):
        part.intermediate_size = next(m.gate_proj.out_features for m in tower.modules() if hasattr(m, "gate_proj"))


def quantise(vlm: VLM) -> None:
    """Replace every Linear by an `Int8Linear`."""
    for name, module in linears(vlm.hf).items():
        parent, _, leaf = name.rpartition(".")
        setattr(vlm.hf.get_submodule(parent), leaf, Int8Linear.of(module))


def memory_bytes(vlm: VLM) -> int:
    """Bytes of all parameters and buffers as they lie in memory, packed weights included."""
    packed = sum(m.packed_bytes for m in linears(vlm.hf).values() if isinstance(m, Int8Linear) and m.packed is not None)
    held = [part for t in (*vlm.hf.parameters(), *vlm.hf.buffers())
            for part in ((t.packed, t.meta) if isinstance(t, SparseSemiStructuredTensor) else (t,)) if part is not None]
    return packed + sum(t.numel() * t.element_size() for t in held)


def zeros(vlm: VLM) -> float:
    """Share of the Linear weights that are exactly zero; ask before they are packed."""
    weights = [m.weight for m in linears(vlm.hf).values()]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def save(vlm: VLM, folder: Path, variant: str) -> int:
    """Write a model of that variant -> bytes on disk of its weights. `load` gives the same weights back, bit for bit."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in ((name, tensor.cpu()) for name, tensor in vlm.hf.state_dict().items()):
        sparse = ("pruned" in variant or "sparse24" in variant) and name.endswith(".weight") and tensor.ndim == 2
        tensors |= _packed(name, tensor) if sparse else {name: tensor.contiguous()}
    save_file(tensors, folder / WEIGHTS)
    vlm.hf.config.save_pretrained(folder)
    vlm.tokenizer.save_pretrained(folder)
    (folder / MANIFEST).write_text(json.dumps({"variant": variant}) + "\n")
    return (folder / WEIGHTS).stat().st_size


def is_compressed(name: str | Path) -> bool:
    return (Path(name) / MANIFEST).is_file()


def load(folder: Path, device: torch.device) -> VLM:
    """A model written by `save`, ready to stream."""
    manifest = json.loads((folder / MANIFEST).read_text())
    try:
        packed = load_file(folder / WEIGHTS)
        vlm = VLM(Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(folder)), AutoTokenizer.from_pretrained(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no complete compressed model; run the `compress` stage again.") from error
    if "int8" in manifest["variant"]:
        quantise(vlm)
    vlm.hf.load_state_dict(_unpacked(packed))
    vlm = VLM(vlm.hf.to(device), vlm.tokenizer)
    float_24 = "sparse24" in manifest["variant"] and "int8" not in manifest["variant"]
    if float_24 and device.type == "cuda" and torch.cuda.get_device_capability()[0] >= 8:
        semi_structured(vlm)
    if device.type == "cpu":
        for module in linears(vlm.hf).values():
            if isinstance(module, Int8Linear):
                module.pack()
    return vlm


def _packed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A matrix with many zeros as its non-zeros, a bit mask and its shape; as it is where that would not be smaller."""
    mask = tensor != 0
    bits = torch.nn.functional.pad(mask.flatten().to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    bits = (bits << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)
    values = tensor[mask]
    if values.numel() * values.element_size() + bits.numel() >= tensor.numel() * tensor.element_size():
        return {name: tensor.contiguous()}
    return {f"{name}:values": values, f"{name}:bits": bits, f"{name}:shape": torch.tensor(tensor.shape)}


def _unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
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
