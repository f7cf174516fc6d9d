"""The reader of TensorFlow.js graphs: each kind of operation against what torch's own, or a hand, makes of it; what it cannot read, it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from streamingvlm.base.errors import UserError
from streamingvlm.models.eyes import graph

SAME, VALID = {"s": list(b"SAME")}, {"s": "VkFMSUQ="}  # the two ways in which the format writes text


def integers(*values: int) -> dict:
    return {"list": {"i": [str(value) for value in values]}}


def written(folder: Path, nodes: list[tuple], constants: dict[str, np.ndarray]) -> Path:
    """(name, kind, inputs, attributes) and constants -> a model's folder, its weights cut into two shards at an odd place."""
    rows = [{"name": name, "op": kind, "input": inputs, "attr": attributes} for name, kind, inputs, attributes in nodes]
    rows += [{"name": name, "op": "Const", "input": [], "attr": {}} for name in constants]
    described = [{"name": name, "shape": list(value.shape), "dtype": str(value.dtype)} for name, value in constants.items()]
    data = b"".join(value.tobytes() for value in constants.values())
    folder.mkdir(exist_ok=True)
    for k, part in enumerate((data[:7], data[7:])):
        (folder / f"shard{k}").write_bytes(part)
    told = {"modelTopology": {"node": rows}, "weightsManifest": [{"paths": ["shard0", "shard1"], "weights": described}]}
    (folder / "model.json").write_text(json.dumps(told))
    return folder


def run(folder: Path, kind: str, attributes: dict, inputs: list[np.ndarray]) -> Tensor:
    """One operation on inputs of which the first comes in and the others are constants."""
    names = [f"c{k}" for k in range(1, len(inputs))]
    nodes = [("y", kind, ["x", *names], attributes), ("out", "Mul", ["y", "one"], {})]
    constants = {**dict(zip(names, inputs[1:], strict=True)), "one": np.float32([1])}
    return graph.read(written(folder, nodes, constants), ("x",), ("out",))(torch.from_numpy(inputs[0]))[0]


def some(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = some(2, 4, 6, 3)
T = torch.from_numpy(X)
ints = lambda *values: np.array(values, np.int32)  # noqa: E731
BATCH = [some(3, seed=k) for k in (1, 2, 3)] + [np.abs(some(3, seed=4)) + 0.1]
PLAIN = [
    ("Add", {}, [X, some(3)], T + torch.from_numpy(some(3))),
    ("AddV2", {}, [X, some(3)], T + torch.from_numpy(some(3))),
    ("AddN", {}, [X, X, X], 3 * T),
    ("BiasAdd", {}, [X, some(3)], T + torch.from_numpy(some(3))),
    ("ConcatV2", {}, [X, X, np.int32(1)], torch.cat((T, T), 1)),
    ("Exp", {}, [X], T.exp()),
    ("ExpandDims", {}, [X, np.int32(2)], T[:, :, None]),
    *((kind, {"epsilon": {"f": 0.01}}, [X, *BATCH],
       F.batch_norm(T.permute(0, 3, 1, 2), *(torch.from_numpy(BATCH[k]) for k in (2, 3, 0, 1)), eps=0.01).permute(0, 2, 3, 1))
      for kind in ("FusedBatchNorm", "FusedBatchNormV3")),
    ("Mul", {}, [X, some(3)], T * torch.from_numpy(some(3))),
    ("Pack", {"axis": {"i": "1"}}, [X, X], torch.stack((T, T), 1)),
    ("Relu6", {}, [9 * X], (9 * T).clamp(0, 6)),
    ("Reshape", {}, [X, ints(2, -1)], T.flatten(1)),
    ("Shape", {}, [X], torch.tensor([2.0, 4, 6, 3])),
    ("Sigmoid", {}, [X], T.sigmoid()),
    ("Squeeze", {"squeeze_dims": integers(2)}, [X[:, :, None]], T),
    ("Squeeze", {}, [X[:, :, None]], T),
    ("StridedSlice", {"shrink_axis_mask": {"i": "1"}}, [X, ints(1, 0), ints(2, 3), ints(1, 2)], T[1, 0:3:2]),
    ("StridedSlice", {"begin_mask": {"i": "1"}, "end_mask": {"i": "2"}}, [X, ints(1, 1), ints(1, 2), ints(1, 1)], T[:1, 1:]),
    ("Sub", {}, [X, some(3)], T - torch.from_numpy(some(3))),
    ("Tile", {}, [X, ints(1, 2, 1, 1)], torch.cat((T, T), 1)),
    ("Transpose", {}, [X, ints(0, 3, 1, 2)], T.permute(0, 3, 1, 2)),
    ("Unpack", {"axis": {"i": "1"}, "num": {"i": "4"}}, [X], T[:, 0]),
]


@pytest.mark.parametrize(("kind", "attributes", "inputs", "wanted"), PLAIN, ids=[f"{case[0]}-{k}" for k, case in enumerate(PLAIN)])
def test_a_plain_operation(tmp_path, kind, attributes, inputs, wanted):
    torch.testing.assert_close(run(tmp_path, kind, attributes, inputs), wanted)


def test_every_kind_is_tried():
    assert {case[0] for case in PLAIN} | set(graph.WEIGHTED) == graph.KINDS.keys()


@pytest.mark.parametrize("side", [(5, 7), (6, 8), (3, 9)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("padding", [SAME, VALID], ids=["same", "valid"])
def test_convolutions(tmp_path, side, kernel, stride, padding):
    """Against sums over every place, written from TensorFlow's definition: with SAME, the odd pixel of padding lies behind."""
    x, weight = some(2, *side, 3), some(kernel, kernel, 3, 2, seed=1)
    attributes = {"strides": integers(1, stride, stride, 1), "padding": padding, "dilations": integers(1, 1, 1, 1)}
    if padding is SAME:
        size = [-(-n // stride) for n in side]
        before = [max((n_out - 1) * stride + kernel - n, 0) // 2 for n_out, n in zip(size, side, strict=True)]
    else:
        size, before = [(n - kernel) // stride + 1 for n in side], [0, 0]
    whole, deep = np.zeros((2, *size, 2), np.float32), np.zeros((2, *size, 6), np.float32)
    for row, column, i, j in np.ndindex(*size, kernel, kernel):
        at = (row * stride + i - before[0], column * stride + j - before[1])
        if 0 <= at[0] < side[0] and 0 <= at[1] < side[1]:
            whole[:, row, column] += x[:, at[0], at[1]] @ weight[i, j]
            deep[:, row, column] += (x[:, at[0], at[1], :, None] * weight[i, j]).reshape(2, 6)
    for kind, wanted in (("Conv2D", whole), ("DepthwiseConv2dNative", deep)):
        got = run(tmp_path, kind, attributes, [x, weight])
        torch.testing.assert_close(got, torch.from_numpy(wanted), rtol=1e-4, atol=1e-5)


def convolved(folder: Path, also: tuple[str, ...] = ()) -> graph.Graph:
    """x -> convolution -> times -> plus -> Relu6, weights, scale and shift being computed from constants, as exporters leave them."""
    nodes = [("conv", "Conv2D", ["x", "w"], {"strides": integers(1, 1, 1, 1), "padding": SAME}), ("gain", "Mul", ["g", "g"], {}),
             ("scaled", "Mul", ["conv", "gain"], {}), ("shifted", "Add", ["scaled", "b"], {}), ("y", "Relu6", ["shifted"], {}),
             ("never", "NonMaxSuppressionV3", ["y"], {})]
    return graph.read(written(folder, nodes, {"w": some(3, 3, 3, 4), "g": some(4), "b": some(4, seed=2)}), ("x",), ("y", *also))


def test_scale_and_shift_go_into_the_convolution_and_change_nothing(tmp_path):
    alone, watched = convolved(tmp_path / "a"), convolved(tmp_path / "b", also=("conv", "scaled"))
    assert [node.kind for node in alone.nodes] == ["Conv2D", "Relu6"]  # and what no output needs, is not even read
    y, conv, scaled = watched(T)  # who asks for what is between, gets it
    torch.testing.assert_close(alone(T)[0], y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled, conv * torch.from_numpy(some(4)) ** 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y, (scaled + torch.from_numpy(some(4, seed=2))).clamp(0, 6), rtol=1e-4, atol=1e-5)


def test_several_outputs_of_a_node_by_number(tmp_path):
    nodes = [("parts", "Unpack", ["x"], {"axis": {"i": "0"}}), ("y", "Sub", ["parts:1", "parts"], {}), ("z", "Exp", ["y", "^parts"], {})]
    z, = graph.read(written(tmp_path, nodes, {}), ("x",), ("z",))(T)
    torch.testing.assert_close(z, (T[1] - T[0]).exp())


def test_what_cannot_be_read_is_said(tmp_path):
    folder = written(tmp_path, [("y", "While", ["x"], {}), ("z", "Conv2D", ["x", "w"], {"dilations": integers(1, 2, 2, 1)})], {"w": some(1, 1, 3, 3)})
    for outputs, words in ((("y",), "needs While"), (("z",), "dilated"), (("nothing",), "no node 'nothing'")):
        with pytest.raises(UserError, match=words):
            graph.read(folder, ("x",), outputs)
    (folder / "shard1").write_bytes(b"")
    with pytest.raises(UserError, match="fetch it again"):
        graph.read(folder, ("x",), ("z",))
    with pytest.raises(UserError, match="holds no graph"):
        graph.read(tmp_path / "nowhere", ("x",), ("z",))
