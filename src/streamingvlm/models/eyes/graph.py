"""A graph of TensorFlow.js, model.json and its shards, run by torch: what lies between the named inputs and outputs, once for each kind of operation.

    graph = read(Path("coco-ssd"), inputs=("Preprocessor/sub",), outputs=("Postprocessor/convert_scores",))
    scores, = graph(pictures)

Knows 22 plain kinds (KINDS) and refuses others when it reads; no control flow, no training, and not what a picture is. Tensors stay in TensorFlow's
order, [B, H, W, C]; a convolution sees them as torch's channels-last, so nothing is moved. What needs no input is computed once, and a convolution's
scale and shift by constants go into its weights. The format is TensorFlow's GraphDef as JSON: github.com/tensorflow/tfjs, converter/docs.
Letters: B pictures, H W pixels, C channels, I O channels in and out, M outputs for each channel.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from streamingvlm.base.errors import UserError

DTYPES = {"float32": np.float32, "int32": np.int32}
Value = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Node:
    """One operation. `inputs`: (name of a node, which of its outputs)."""

    name: str
    kind: str
    inputs: tuple[tuple[str, int], ...]
    attributes: Mapping[str, dict]

    def number(self, key: str, usual: float = 0) -> float:
        """An integer or a real number; integers are text in this format."""
        told = self.attributes.get(key, {})
        return float(told.get("i", told.get("f", usual)))

    def integers(self, key: str) -> list[int]:
        return [int(value) for value in self.attributes.get(key, {}).get("list", {}).get("i", [])]

    def text(self, key: str, usual: str = "") -> str:
        """Bytes, which stand here as a list of numbers, or in base 64."""
        told = self.attributes.get(key, {}).get("s")
        return usual if told is None else (bytes(told) if isinstance(told, list) else base64.b64decode(told)).decode()


# --- the kinds of operation: (node, inputs) -> output ---


def _padded(x: Tensor, node: Node, kernel: Sequence[int], strides: Sequence[int]) -> Tensor:
    """x [B, C, H, W] with TensorFlow's SAME: as many outputs as a stride fits into the side, the odd pixel after the last."""
    if node.text("padding") == "VALID":
        return x
    beside: list[int] = []
    for side, k, stride in zip(x.shape[:1:-1], kernel[::-1], strides[::-1], strict=True):  # torch pads the last side first
        missing = max((math.ceil(side / stride) - 1) * stride + k - side, 0)
        beside += [missing // 2, missing - missing // 2]
    return F.pad(x, beside) if any(beside) else x


def _convolve(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [B, H, W, I], weight [O, I / groups, h, w] as `_prepared` leaves it -> [B, H', W', O]."""
    strides = node.integers("strides")[1:3]
    x = _padded(x.permute(0, 3, 1, 2), node, weight.shape[2:], strides)  # [B, I, H, W]
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, bias, strides, groups=groups).permute(0, 2, 3, 1)  # [B, H', W', O]


def _normalise(node: Node, x: Tensor, gain: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    scale = gain / (variance + node.number("epsilon", 1e-3)).sqrt()  # [C]
    return x * scale + (shift - mean * scale)


def _slice(node: Node, x: Tensor, begin: Tensor, end: Tensor, step: Tensor) -> Tensor:
    first, last, shrink = (int(node.number(f"{name}_mask")) for name in ("begin", "end", "shrink_axis"))
    index: list = []
    for axis, (a, b, by) in enumerate(zip(begin.tolist(), end.tolist(), step.tolist(), strict=True)):
        whole = slice(None if first >> axis & 1 else a, None if last >> axis & 1 else b, by)
        index.append(a if shrink >> axis & 1 else whole)
    return x[tuple(index)]


def _squeeze(node: Node, x: Tensor) -> Tensor:
    axes = node.integers("squeeze_dims") or [axis for axis, side in enumerate(x.shape) if side == 1]
    return x.squeeze(tuple(axes))


KINDS: dict[str, Callable[..., Value]] = {
    "Add": lambda node, a, b: a + b,
    "AddN": lambda node, *parts: sum(parts[1:], parts[0]),
    "AddV2": lambda node, a, b: a + b,
    "BiasAdd": lambda node, x, bias: x + bias,
    "ConcatV2": lambda node, *parts: torch.cat(parts[:-1], int(parts[-1])),
    "Conv2D": _convolve,
    "DepthwiseConv2dNative": _convolve,
    "Exp": lambda node, x: x.exp(),
    "ExpandDims": lambda node, x, axis: x.unsqueeze(int(axis)),
    "FusedBatchNorm": _normalise,
    "FusedBatchNormV3": _normalise,
    "Mul": lambda node, a, b: a * b,
    "Pack": lambda node, *parts: torch.stack(parts, int(node.number("axis"))),
    "Relu6": lambda node, x: F.relu6(x),
    "Reshape": lambda node, x, shape: x.reshape(shape.tolist()),
    "Shape": lambda node, x: torch.tensor(x.shape, dtype=torch.int32),
    "Sigmoid": lambda node, x: x.sigmoid(),
    "Squeeze": _squeeze,
    "StridedSlice": _slice,
    "Sub": lambda node, a, b: a - b,
    "Tile": lambda node, x, times: x.repeat(times.tolist()),
    "Transpose": lambda node, x, order: x.permute(order.tolist()),
    "Unpack": lambda node, x: x.unbind(int(node.number("axis"))),
}
WEIGHTED = ("Conv2D", "DepthwiseConv2dNative")


class Graph:
    """What lies between `inputs` and `outputs`, in the order in which it can run. UserError for a kind that is not known here."""

    def __init__(self, nodes: Mapping[str, Node], constants: Mapping[str, Tensor], inputs: Sequence[str], outputs: Sequence[str]):
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.constants: dict[str, Value] = dict(constants)
        order = _order(nodes, {*inputs, *constants}, outputs)
        if unknown := sorted({node.kind for node in order} - KINDS.keys()):
            raise UserError(f"This graph needs {', '.join(unknown)}, which is not read here: cut it elsewhere, or take another model.")
        self.nodes = _folded(self._without_constants(order), self.constants, self.outputs)

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """One tensor for each name of `inputs` -> one for each name of `outputs`."""
        values: dict[str, Value] = dict(zip(self.inputs, inputs, strict=True))
        for node in self.nodes:
            values[node.name] = KINDS[node.kind](node, *(self._value(values, name, k) for name, k in node.inputs))
        return [self._value(values, name, 0) for name in self.outputs]

    def _value(self, values: Mapping[str, Value], name: str, k: int) -> Tensor:
        value = values[name] if name in values else self.constants[name]
        return value[k] if isinstance(value, tuple) else value

    def _without_constants(self, order: Sequence[Node]) -> list[Node]:
        """Compute what needs no input; turn each convolution's weights into torch's order, once even where two share them."""
        left = []
        for node in (self._prepared(node) if node.kind in WEIGHTED else node for node in order):
            if all(name in self.constants for name, _ in node.inputs):
                self.constants[node.name] = KINDS[node.kind](node, *(self._value({}, name, k) for name, k in node.inputs))
            else:
                left.append(node)
        return left

    def _prepared(self, node: Node) -> Node:
        if any(stride != 1 for stride in node.integers("dilations")) or node.text("data_format", "NHWC") != "NHWC":
            raise UserError(f"{node.name} is dilated, or not in the order NHWC: such a convolution is not read here.")
        (x, k), (name, _) = node.inputs
        turned = f"{name} of {node.kind}"
        if name not in self.constants:
            raise UserError(f"{node.name} has weights that are not constant: such a convolution is not read here.")
        if turned not in self.constants:
            weight = self.constants[name]  # [h, w, I, O], depthwise [h, w, I, M]
            if node.kind != "Conv2D":
                weight = weight.flatten(2)[:, :, None]  # [h, w, 1, I M]
            self.constants[turned] = weight.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)  # [O, I, h, w]
        return replace(node, inputs=((x, k), (turned, 0)))


def _order(nodes: Mapping[str, Node], known: set[str], outputs: Sequence[str]) -> list[Node]:
    """The nodes that `outputs` need, each behind those that it needs itself."""
    order, done, waiting = [], set(known), [(name, False) for name in reversed(outputs)]
    while waiting:
        name, ready = waiting.pop()
        if name in done:
            continue
        if name not in nodes:
            raise UserError(f"The graph has no node {name!r}: it is not the one that was meant.")
        if ready:
            done.add(name)
            order.append(nodes[name])
        else:
            waiting += [(name, True), *((needed, False) for needed, _ in nodes[name].inputs)]
    return order


def _folded(order: Sequence[Node], constants: dict[str, Value], outputs: Sequence[str]) -> list[Node]:
    """Convolution, times and plus a constant for each channel: one convolution, where nobody else wants what is between."""
    wanted = Counter([name for node in order for name, _ in node.inputs] + list(outputs))
    left: dict[str, Node] = {}
    for node in order:
        before = left.get(node.inputs[0][0])
        more = [constants.get(name) for name, _ in node.inputs[1:]]
        single = len(more) == 1 and isinstance(more[0], Tensor) and more[0].numel() == more[0].shape[-1:].numel() and more[0].ndim > 0
        if before is None or before.kind not in WEIGHTED or wanted[before.name] > 1 or not single or node.kind not in ("Mul", "Add", "BiasAdd"):
            left[node.name] = node
            continue
        weight, value = constants[before.inputs[1][0]], more[0].flatten()  # [O, I, h, w], [O]
        bias = constants[before.inputs[2][0]] if len(before.inputs) > 2 else torch.zeros(weight.shape[0])
        scaled = node.kind == "Mul"
        names = (f"{node.name} weight", f"{node.name} bias")
        constants |= dict(zip(names, (weight * value[:, None, None, None], bias * value) if scaled else (weight, bias + value), strict=True))
        del left[before.name]
        left[node.name] = replace(before, name=node.name, inputs=(before.inputs[0], *((name, 0) for name in names)))
    return list(left.values())


def read(folder: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
    """UserError where the folder holds no such model, or one whose files do not belong together."""
    try:
        told = json.loads((folder / "model.json").read_text())
        constants: dict[str, Tensor] = {}
        for group in told["weightsManifest"]:
            constants |= _weights(b"".join((folder / Path(name).name).read_bytes() for name in group["paths"]), group["weights"])
        nodes = {row["name"]: _node(row) for row in told["modelTopology"]["node"] if row["op"] != "Const"}
    except (OSError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise UserError(f"{folder} holds no graph of TensorFlow.js that can be read ({type(error).__name__}: {error}): fetch it again.") from None
    return Graph(nodes, constants, inputs, outputs)


def _weights(data: bytes, rows: Sequence[dict]) -> dict[str, Tensor]:
    """Tensors one after another. ValueError where they are of another kind, or not as many bytes as they should be."""
    found, at = {}, 0
    for row in rows:
        if row["dtype"] not in DTYPES or "quantization" in row:
            raise ValueError(f"{row['name']} is quantised, or of {row['dtype']}")
        count, dtype = math.prod(row["shape"]), np.dtype(DTYPES[row["dtype"]]).newbyteorder("<")
        values = np.frombuffer(data, dtype, count, at).reshape(row["shape"])
        found[row["name"]] = torch.from_numpy(values.astype(DTYPES[row["dtype"]]))
        at += values.nbytes
    if at != len(data):
        raise ValueError(f"{len(data)} bytes of weights where {at} are described")
    return found


def _node(row: dict) -> Node:
    """`a`, `a:1`; `^a` only says what must run before, which matters to nobody here."""
    named = [name.partition(":") for name in row.get("input", []) if not name.startswith("^")]
    return Node(row["name"], row["op"], tuple((name, int(k or 0)) for name, _, k in named), row.get("attr", {}))
