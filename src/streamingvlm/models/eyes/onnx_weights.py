"""The weights in an ONNX file, by the names that they had before the export; no graph is run, and no package for it is needed.

    weights = vit(path.read_bytes())      # a state of transformers' Dinov2Model

An ONNX file is a protocol buffer (github.com/onnx/onnx, onnx/onnx.proto). Exporters turn the weight of a linear layer round and call it
`onnx::MatMul_12`; the node that multiplies by it still has the layer's name.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from streamingvlm.base.errors import UserError

GRAPH, NODE, INITIALISER = 7, 1, 5  # fields of a model and of its graph
DIMS, TYPE, TENSOR_NAME, RAW = 1, 2, 8, 9  # of a tensor
INPUT, NODE_NAME, KIND = 1, 3, 4  # of a node
FLOAT = 1


def vit(data: bytes) -> dict[str, Tensor]:
    """Everything under `backbone.`, as Dinov2Model names it. UserError for a file that holds no such thing."""
    try:
        found = weights(data)
    except (IndexError, KeyError, ValueError) as error:
        raise UserError(f"This is no ONNX file that can be read ({type(error).__name__}): fetch it again.") from None
    state = {name.removeprefix("backbone."): value for name, value in found.items() if name.startswith("backbone.")}
    if "embeddings.cls_token" not in state:
        raise UserError("This ONNX file holds no `backbone.embeddings.cls_token`: it is not the ViT that was meant.")
    width = state["embeddings.cls_token"].shape[-1]
    places = [value for name, value in found.items() if name.startswith("onnx::") and value.ndim == 3 and value.shape[2] == width]
    if len(places) != 2:
        raise UserError("This ONNX file does not hold the places of its patches as this ViT's export does: it is another version.")
    # The export cut them into that of the class token and those of the patches. Only training masks; an export has no token for that.
    return {"embeddings.position_embeddings": torch.cat(sorted(places, key=lambda value: value.shape[1]), 1),
            "embeddings.mask_token": torch.zeros(1, width)} | state


def weights(data: bytes) -> dict[str, Tensor]:
    """float32 initialisers by name; those of a matrix product by the name of its layer, turned back to [out, in]."""
    graph = dict(_fields(memoryview(data)))[GRAPH]
    tensors, layers = {}, {}
    for field, value in _fields(graph):
        if field == INITIALISER:
            name, tensor = _tensor(value)
            if tensor is not None:
                tensors[name] = tensor
        elif field == NODE:
            parts = list(_fields(value))
            told = {key: bytes(part).decode() for key, part in parts if key in (NODE_NAME, KIND)}
            if told.get(KIND) == "MatMul":
                layers |= {bytes(part).decode(): told[NODE_NAME] for key, part in parts if key == INPUT}
    for name in [name for name in tensors if name.startswith("onnx::MatMul")]:
        path = layers[name].strip("/").rpartition("/")[0].replace("/", ".")
        tensors[f"{path}.weight"] = tensors.pop(name).T.contiguous()
    return tensors


def _tensor(data: memoryview) -> tuple[str, Tensor | None]:
    """A tensor's name and itself; None where it is not float32 or not kept as raw bytes."""
    dims, name, raw, kind = [], "", None, 0
    for field, value in _fields(data):
        if field == DIMS:
            dims += [value] if isinstance(value, int) else list(_varints(value))
        elif field == TYPE:
            kind = value
        elif field == TENSOR_NAME:
            name = bytes(value).decode()
        elif field == RAW:
            raw = value
    if kind != FLOAT or raw is None:
        return name, None
    return name, torch.from_numpy(np.frombuffer(raw, "<f4").reshape(dims).astype(np.float32))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values: integers, or the bytes of what has a length."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind, value = key & 7, None
        if kind == 0:
            value, at = _varint(data, at)
        else:
            long, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            if at + long > len(data):
                raise ValueError("cut short")
            value, at = data[at : at + long], at + long
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A whole number, seven bits a byte, the lowest first -> it, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value
