"""A memory by itself, in a folder: its shape and its weights in half precision, a third of a network's bytes. Ablations differ in nothing else.

    save_memory(memory, folder); memory = load_memory(folder)      # or of a folder that `Network.save` wrote
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.models.multicamera import network
from streamingvlm.models.multicamera.memory import Memory, MemoryKnobs
from streamingvlm.models.multicamera.trm import Recursion

CONFIG, WEIGHTS = "memory.json", "memory.safetensors"


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
