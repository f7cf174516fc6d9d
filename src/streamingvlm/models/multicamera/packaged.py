"""A memory by itself, in a folder: its shape and its weights in half precision, a third of a network's bytes. Ablations differ in nothing else.

    save_memory(memory, folder); memory = load_memory(folder)      # or of a folder that `Network.save` wrote
    memory = load_variant(base, "no_hrm")                          # of those packaged with a base: `model`, OTHERWISE, or one trained for itself
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera import network
from streamingvlm.models.multicamera.memory import Memory, MemoryKnobs
from streamingvlm.models.multicamera.trm import Recursion

CONFIG, WEIGHTS = "memory.json", "memory.safetensors"
# The model's own weights, run otherwise: with the answer of a look held as the article has it, or with another time between two looks.
OTHERWISE = {"held_hrm": {"holds": "answer"}, **{f"period{n}": {"period": n} for n in (1, 4, 64)}}


def save_memory(memory: Memory, folder: Path) -> int:
    """-> bytes of the weights."""
    content = save({name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous() for name, tensor in memory.state_dict().items()})
    files.write(folder / CONFIG, json.dumps(asdict(memory.knobs), indent=1) + "\n")
    files.write(folder / WEIGHTS, content)
    return len(content)


def load_memory(folder: Path) -> Memory:
    """Ready to decide. UserError where there is none, or not a whole one."""
    if not (folder / CONFIG).is_file():
        return network.load(folder).memory
    try:
        told = json.loads((folder / CONFIG).read_text())
        memory = Memory(MemoryKnobs(**told | {"trm": Recursion(**told["trm"])}))
        memory.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} holds no whole memory of a multi-camera model; name another folder ({error}).") from error
    return memory.eval()


def variant_folder(base: Path, name: str) -> Path:
    """Where what belongs to one variant alone lies."""
    return base if name == "model" else base / "variants" / name


def load_variant(base: Path, name: str) -> Memory:
    """Ready to decide. UserError where there is none."""
    if name not in OTHERWISE:
        return load_memory(variant_folder(base, name))
    memory = load_memory(base)
    memory.knobs = replace(memory.knobs, **OTHERWISE[name])
    return memory
