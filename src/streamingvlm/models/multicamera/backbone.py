"""Backbones by name, one interface: frames [F, H, W, 3] uint8 -> patch tokens and a 256-d embedding a frame. Knows no stream and no label.

- `tiny`: three convolutions and two pre-norm blocks over 12x12 tokens, for pictures of 96x96 px. Trained here.
- `vit-l14`, `swin-l`: transformers' own CLIP ViT-L/14 and Swin-L classes, 224x224 px. Random weights by their configs unless `weights` names a
  folder or a hub repository of them (HUB holds the usual ones).
- `vit-s14`: a ViT-S/14 of DINOv2's architecture, whose weights come in a package: `weights` names a safetensors file or folder.

    seen = build("tiny")(frames); seen.tokens, seen.embedding

Only `tiny` has a fine map at a quarter of the picture beside its tokens: small things and colours are read there.
Letters: F frames, H W pixels, P patches, C channels, E hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera.nets import Block, convolution, linear, rms, seeded

EMBEDDING = 256
HUB = {"vit-l14": "openai/clip-vit-large-patch14", "swin-l": "microsoft/swin-large-patch4-window7-224-in22k"}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Seen:
    """What a backbone makes of frames: tokens [F, P, C] in rows of `grid` = (rows, columns), an embedding [F, 256] of RMS 1, and the fine map
    [F, C', H/4, W/4] where there is one."""

    tokens: Tensor
    grid: tuple[int, int]
    embedding: Tensor
    fine: Tensor | None = None

    def picture(self) -> Tensor:
        """The tokens as a map [F, C, rows, columns]."""
        return self.tokens.transpose(1, 2).unflatten(2, self.grid)


class Tiny(nn.Module):
    """Trained here: 96x96 px -> 12x12 tokens of `width`. Without attention across frames, so walking and running look the same to it."""

    size_px, fine = 96, 48

    def __init__(self, width: int = 64, blocks: int = 2, heads: int = 4):
        super().__init__()
        self.width, side = width, self.size_px // 8
        self.stem = nn.ModuleList(convolution(a, b, 4, 2) for a, b in ((3, 24), (24, self.fine), (self.fine, width)))
        self.place = nn.Parameter(0.02 * torch.randn(side * side, width))
        self.blocks = nn.ModuleList(Block(width, width * 8 // 3, heads) for _ in range(blocks))
        self.squeeze = convolution(width, width, 3, 3)
        self.embed = linear((side // 3) ** 2 * width, EMBEDDING)

    def forward(self, frames: Tensor) -> Seen:
        x = (frames.permute(0, 3, 1, 2).float() - 128) / 64  # [F, C, H, W], channels last in memory
        x = F.silu(self.stem[0](x))
        fine = F.silu(self.stem[1](x))  # [F, C', H/4, W/4]
        x = self.stem[2](fine)  # [F, E, H/8, W/8]
        grid, tokens = tuple(x.shape[2:]), x.flatten(2).transpose(1, 2) + self.place  # [F, P, E]
        for block in self.blocks:
            tokens = block(tokens)
        tokens = rms(tokens)
        squeezed = F.silu(self.squeeze(tokens.transpose(1, 2).unflatten(2, grid)))  # [F, E, rows/3, columns/3]
        return Seen(tokens, grid, rms(self.embed(squeezed.flatten(1))), fine)


class Borrowed(nn.Module):
    """One of transformers' vision models and a linear map from its pooled output to the embedding. `prefix`: tokens before the patches."""

    fine = None

    def __init__(self, model: nn.Module, size_px: int, width: int, prefix: int):
        super().__init__()
        self.model, self.size_px, self.width, self.prefix = model, size_px, width, prefix
        self.embed = linear(width, EMBEDDING)
        for name, value in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, torch.tensor(value)[:, None, None])

    def forward(self, frames: Tensor) -> Seen:
        x = frames.permute(0, 3, 1, 2).to(self.mean.dtype) / 255  # [F, C, H, W]
        if x.shape[2:] != (self.size_px, self.size_px):
            x = F.interpolate(x, (self.size_px, self.size_px), mode="bilinear", antialias=True)
        out = self.model(pixel_values=(x - self.mean) / self.deviation)
        tokens = out.last_hidden_state[:, self.prefix:]  # [F, P, E]
        side = round(tokens.shape[1] ** 0.5)
        pooled = out.pooler_output if out.pooler_output is not None else tokens.mean(1)  # [F, E]
        return Seen(tokens, (side, side), rms(self.embed(pooled)))


Backbone = Tiny | Borrowed


def _vit_l14(weights: str | None) -> Borrowed:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    shape = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=224, patch_size=14,
                             projection_dim=768)
    return Borrowed(CLIPVisionModel.from_pretrained(weights) if weights else CLIPVisionModel(shape), 224, 1024, prefix=1)


def _swin_l(weights: str | None) -> Borrowed:
    from transformers import SwinConfig, SwinModel

    shape = SwinConfig(image_size=224, embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=7)
    return Borrowed(SwinModel.from_pretrained(weights) if weights else SwinModel(shape), 224, 1536, prefix=0)


def _vit_s14(weights: str | None) -> Borrowed:
    from transformers import Dinov2Config, Dinov2Model

    model = Dinov2Model(Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14))
    if weights:
        from safetensors.torch import load_file

        path = Path(weights)
        model.load_state_dict(load_file(path / "model.safetensors" if path.is_dir() else path))
    return Borrowed(model, 224, 384, prefix=1)


BUILDERS = {"tiny": lambda weights: Tiny(), "vit-l14": _vit_l14, "swin-l": _swin_l, "vit-s14": _vit_s14}


def build(name: str, weights: str | None = None, seed: int = 0) -> Backbone:
    """A backbone in evaluation mode. UserError for an unknown name, or weights that cannot be read."""
    if name not in BUILDERS:
        raise UserError(f"There is no backbone {name!r}: choose one of {', '.join(BUILDERS)}.")
    try:
        return seeded(seed, lambda: BUILDERS[name](weights)).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"The weights {weights!r} of backbone {name} can't be read: name a folder or file that holds them ({error}).") from error
