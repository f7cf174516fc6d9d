"""Weights out of an ONNX file that is written here byte by byte, as the format's description says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamingvlm.base.errors import UserError
from streamingvlm.models.eyes import onnx_weights


def number(value: int) -> bytes:
    out = b""
    while True:
        value, low = value >> 7, value & 127
        out += bytes([low | 128 * bool(value)])
        if not value:
            return out


def field(key: int, value: bytes | int) -> bytes:
    """A whole number, or bytes with their length."""
    return number(key << 3) + number(value) if isinstance(value, int) else number(key << 3 | 2) + number(len(value)) + value


def tensor(name: str, value: np.ndarray, packed: bool) -> bytes:
    dims = field(1, b"".join(number(side) for side in value.shape)) if packed else b"".join(field(1, side) for side in value.shape)
    kind = 1 if value.dtype == np.float32 else 7
    return field(5, dims + field(2, kind) + field(8, name.encode()) + field(9, value.tobytes()))


def product(layer: str, weight: str) -> bytes:
    return field(1, field(1, b"x") + field(1, weight.encode()) + field(2, b"y") + field(3, layer.encode()) + field(4, b"MatMul"))


def model(*parts: bytes) -> bytes:
    return field(1, 8) + field(7, b"".join(parts))


WIDE = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)  # more than one byte says how wide
CLASS, PLACES = WIDE[:1][None], WIDE[1:10][None]


@pytest.mark.parametrize("packed", [True, False])
def test_a_linear_layer_gets_its_name_and_its_direction_back(packed):
    data = model(product("/backbone/layer.0/query/MatMul", "onnx::MatMul_7"), tensor("onnx::MatMul_7", WIDE, packed),
                 tensor("head.bias", WIDE[0], packed), tensor("shape", np.int64([3, 4]), packed))
    found = onnx_weights.weights(data)
    assert found.keys() == {"backbone.layer.0.query.weight", "head.bias"}
    torch.testing.assert_close(found["backbone.layer.0.query.weight"], torch.from_numpy(WIDE.T))


def test_the_vit_has_its_places_in_one_piece():
    parts = tensor("onnx::Reshape_9", PLACES, True), tensor("onnx::Concat_8", CLASS, True), tensor("backbone.embeddings.cls_token", CLASS, True)
    found = onnx_weights.vit(model(*parts, tensor("decoder.bias", WIDE[0], True)))
    assert found.keys() == {"embeddings.position_embeddings", "embeddings.cls_token", "embeddings.mask_token"}
    torch.testing.assert_close(found["embeddings.position_embeddings"], torch.from_numpy(WIDE[None, :10]))
    with pytest.raises(UserError, match="another version"):
        onnx_weights.vit(model(*parts[1:]))


@pytest.mark.parametrize("data", [b"", b"\x3a\xff", b"PK\x03\x04 an archive", model(tensor("x", WIDE, True))],
                         ids=["empty", "cut", "other", "no vit"])
def test_what_is_no_such_file_is_said(data):
    with pytest.raises(UserError, match="ONNX file"):
        onnx_weights.vit(data)
