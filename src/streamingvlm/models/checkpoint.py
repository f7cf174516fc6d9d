"""What is wrong with a folder of weights, by its files alone: before a library is asked that would give another reason, or none.

Reads names, sizes and headers; loads no weight and knows no model's classes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from streamingvlm.base.errors import UserError

LFS = b"version https://git-lfs"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "compressed.safetensors")
QUANTISERS = ("quantize_config.json", "quant_config.json")  # of AutoGPTQ and AutoAWQ, beside a config.json that says nothing
PACKED = re.compile(r"\.(qweight|qzeros|SCB|absmax|quant_state[\w.]*|weight_packed|weight_scale_inv)$")  # what only quantised layers hold


def check(folder: Path, name: str | Path) -> None:
    """UserError, one sentence with the file in question, unless the folder may hold a whole model in numbers that torch computes with."""
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            if file.read(len(LFS)) == LFS:
                raise UserError(f"{name} holds {path.name} only as a pointer of Git LFS: fetch the file itself with `git lfs pull`.")
    weights = [one for one in WEIGHTS if (folder / one).is_file()]
    if (folder / "adapter_config.json").is_file() and not weights:
        base = _read(folder / "adapter_config.json").get("base_model_name_or_path") or "its base model"
        raise UserError(f"{name} is a LoRA adapter for {base}, not a model: merge the two (peft's `merge_and_unload`) and name the result.")
    if not (folder / "config.json").is_file():
        other = " but GGUF files, which other programs read" if any(folder.glob("*.gguf")) else ""
        raise UserError(f"{name} holds no config.json{other}: name a folder with a whole model.")
    config = _read(folder / "config.json")
    if kind := _quantised(folder, config):
        raise UserError(f"{name} is quantised ({kind}), and quantised checkpoints are not read here: name the one it was made from.")
    for index in weights:
        if index.endswith(".index.json"):
            missing = [shard for shard in sorted(set(_read(folder / index).get("weight_map", {}).values())) if not (folder / shard).is_file()]
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise UserError(f"{name} lacks {missing[0]}{more}, which {index} lists: copy or download the rest of the model.")
    if not weights:
        raise UserError(f"{name} holds a config.json and no weights (such as model.safetensors): copy or download the rest of the model.")
    for path in sorted(folder.glob("*.safetensors")):
        if _torn(path):
            raise UserError(f"{name} holds {path.name} only in part: copy or download it again.")


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} cannot be read as JSON: copy or download it again.")
    return found


def _quantised(folder: Path, config: dict) -> str | None:
    """By which method, by the config, a file beside it or the names of the weights."""
    parts = [part for part in (config, config.get("text_config")) if isinstance(part, dict)]
    for found in (part.get(key) for part in parts for key in ("quantization_config", "compression_config")):
        if isinstance(found, dict):
            return str(found.get("quant_method") or found.get("quantization_status") or "by which method it does not say")
    for one in QUANTISERS:
        if (folder / one).is_file():
            return str(_read(folder / one).get("quant_method") or one)
    names = [key for index in folder.glob("*.index.json") for key in _read(index).get("weight_map", {})]
    names += [key for path in folder.glob("model*.safetensors") for key in _header(path) or {}]
    packed = next((found[1] for found in map(PACKED.search, names) if found), None)
    return f"its weights hold `{packed}`" if packed else None


def _header(path: Path) -> dict | None:
    """What a safetensors file says that it holds, or None if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            return json.loads(file.read(size)) if size < 1 << 27 else None
    except (OSError, ValueError):
        return None


def _torn(path: Path) -> bool:
    """Whether a safetensors file ends before what its header lists."""
    header = _header(path)
    if not isinstance(header, dict):
        return True
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    with path.open("rb") as file:
        begin = 8 + int.from_bytes(file.read(8), "little")
    return path.stat().st_size < begin + max(ends, default=0)
