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
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensor
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm.base.config import VARIANT, VARIANTS
from streamingvlm.base.errors import UserError
from streamingvlm.models import compression
from streamingvlm.models.compression import Int8Linear, linears, packed, unpacked, weighed
from streamingvlm.models.qwen25.vlm import VLM

MANIFEST = "compressed.json"
WEIGHTS = "compressed.safetensors"


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


def input_norms(vlm: VLM) -> AbstractContextManager[dict[str, Tensor]]:
    """While it lasts, gather {Linear's name: L2 norm of each of its inputs [in], over all that goes through the model}."""
    return compression.input_norms(vlm.hf)


def prune(vlm: VLM, amount: float, norms: dict[str, Tensor] | None = None) -> None:
    """Set the `amount` (0..1) of every Linear row's weights that matter least to zero, for good."""
    compression.prune(vlm.hf, amount, norms)


@torch.no_grad()
def prune_two_of_four(vlm: VLM, norms: dict[str, Tensor] | None = None) -> None:
    """Set the two that matter least of every four neighbouring weights of a row to zero, for good. Rows that four doesn't divide stay whole."""
    for name, module in linears(vlm.hf).items():
        if module.in_features % 4 == 0:
            order = weighed(name, module, norms).view(module.out_features, -1, 4).argsort(dim=2, stable=True)
            module.weight.view(module.out_features, -1, 4).scatter_(2, order[:, :, :2], 0)


def semi_structured(vlm: VLM) -> None:
    """Hold 2:4 weights in the form that a GPU's sparse matrix units take: layers whose rows come in 32s and columns in 64s, as torch wants it."""
    for module in linears(vlm.hf).values():
        if module.out_features % 32 == 0 and module.in_features % 64 == 0:
            module.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(module.weight.detach()), requires_grad=False)


def shrink(vlm: VLM, amount: float) -> None:
    """Remove from every MLP the `amount` (0..1) of its neurons that matter least, for good."""
    compression.shrink(vlm.hf, amount)
    for part, tower in ((vlm.hf.config.text_config, vlm.hf.model.language_model), (vlm.hf.config.vision_config, vlm.hf.model.visual)):
        part.intermediate_size = next(m.gate_proj.out_features for m in tower.modules() if hasattr(m, "gate_proj"))


def quantise(vlm: VLM) -> None:
    """Replace every Linear by an `Int8Linear`."""
    compression.quantise(vlm.hf)


def memory_bytes(vlm: VLM) -> int:
    """Bytes of all parameters and buffers as they lie in memory, packed weights included."""
    packed = sum(m.packed_bytes for m in linears(vlm.hf).values() if isinstance(m, Int8Linear) and m.packed is not None)
    held = [part for t in (*vlm.hf.parameters(), *vlm.hf.buffers())
            for part in ((t.packed, t.meta) if isinstance(t, SparseSemiStructuredTensor) else (t,)) if part is not None]
    return packed + sum(t.numel() * t.element_size() for t in held)


def zeros(vlm: VLM) -> float:
    """Share of the Linear weights that are exactly zero; ask before they are packed."""
    return compression.zeros(vlm.hf)


def save(vlm: VLM, folder: Path, variant: str) -> int:
    """Write a model of that variant -> bytes on disk of its weights. `load` gives the same weights back, bit for bit."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in ((name, tensor.cpu()) for name, tensor in vlm.hf.state_dict().items()):
        sparse = ("pruned" in variant or "sparse24" in variant) and name.endswith(".weight") and tensor.ndim == 2
        tensors |= packed(name, tensor) if sparse else {name: tensor.contiguous()}
    save_file(tensors, folder / WEIGHTS)
    vlm.hf.config.save_pretrained(folder)
    vlm.tokenizer.save_pretrained(folder)
    (folder / MANIFEST).write_text(json.dumps({"variant": variant}) + "\n")
    return (folder / WEIGHTS).stat().st_size


def is_compressed(name: str | Path) -> bool:
    return (Path(name) / MANIFEST).is_file()


def load(folder: Path, device: torch.device, dtype: torch.dtype | None = None) -> VLM:
    """A model written by `save`, ready to stream. `dtype`: of its float weights; by default bfloat16 on CUDA, float32 on a CPU.
    The scales of int8 stay float32."""
    from accelerate import init_empty_weights

    manifest = json.loads((folder / MANIFEST).read_text())
    try:
        held = load_file(folder / WEIGHTS)
        with init_empty_weights(include_buffers=False):  # random numbers for 8 billion weights would take minutes and 33 GB
            vlm = VLM(Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(folder)), AutoTokenizer.from_pretrained(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no complete compressed model; run the `compress` stage again.") from error
    if "int8" in manifest["variant"]:
        quantise(vlm)
    vlm.hf.load_state_dict(unpacked(held), assign=True)
    vlm = VLM(_placed(vlm.hf, device, dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)), vlm.tokenizer)
    float_24 = "sparse24" in manifest["variant"] and "int8" not in manifest["variant"]
    if float_24 and device.type == "cuda" and torch.cuda.get_device_capability()[0] >= 8:
        semi_structured(vlm)
    if device.type == "cpu":
        for module in linears(vlm.hf).values():
            if isinstance(module, Int8Linear):
                module.pack()
    return vlm


def _placed(hf: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The model on `device`, its float parameters in `dtype`; buffers (packed weights, their scales, RoPE's frequencies) keep theirs."""
    for parameter in hf.parameters():
        parameter.data = parameter.data.to(device, dtype)
    return hf.to(device)
