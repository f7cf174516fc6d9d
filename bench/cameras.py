"""What the multi-camera model costs on this machine: ms a picture and a stream, alone and together, float32 and int8; the claim's large TRMs.

    python -m bench.cameras                 # one thread, medians; some two minutes
    python -m bench.cameras --only network  # or: trm, backbones
    python -m bench.cameras --only hours    # eight cameras for two hours of stream through the memory: does it grow, does it slow down? four minutes
    python -m bench.cameras --save reports/reference/cameras.json     # also into a file that the ledger reads; other parts in it stay

`cpu_ms` counts this thread's own time and is what to read on a machine that others use too; `ms` is the wall's.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import torch

from streamingvlm.base import files
from streamingvlm.base.machine import provenance
from streamingvlm.base.paths import repository_root
from streamingvlm.models import compression
from streamingvlm.models.compression import Int8Linear
from streamingvlm.models.multicamera import compress
from streamingvlm.models.multicamera.backbone import build
from streamingvlm.models.multicamera.nets import parameters
from streamingvlm.models.multicamera.network import Knobs, Network, load
from streamingvlm.models.multicamera.trm import SIZES, TRM
from streamingvlm.training.city.features import record
from streamingvlm.worlds.city.world import FPS, City


def timed(step: Callable[[], object], repeats: int) -> dict[str, float]:
    """Medians of the wall's and the thread's milliseconds, after two calls to warm up."""
    wall, own = [], []
    for k in range(repeats + 2):
        began, used = time.perf_counter(), time.thread_time()
        step()
        if k >= 2:
            wall.append(1e3 * (time.perf_counter() - began))
            own.append(1e3 * (time.thread_time() - used))
    return {"ms": round(statistics.median(wall), 2), "cpu_ms": round(statistics.median(own), 2)}


def network_rows(repeats: int) -> Iterator[dict]:
    for variant in ("float32", "int8", "int8w", "mlp25"):
        network = Network(Knobs())
        compress.apply(network, variant)
        if variant == "int8":
            compress.pack(network)
        for streams in (1, 8, 32):
            frames = torch.randint(0, 256, (1, streams, 96, 96, 3), dtype=torch.uint8)
            _, _, state = network(frames, network.memory.start(streams))  # past the look across: the usual frame
            tick = network.memory.start(streams)
            sight = network.see(frames[0])[0].map(lambda x: x[None])
            row = {"part": "network", "variant": variant, "streams": streams}
            yield row | {"what": "vision"} | timed(lambda f=frames, n=network: n.see(f[0]), repeats)
            yield row | {"what": "memory"} | timed(lambda s=sight, n=network, st=state: n.memory(s, st), repeats)
            yield row | {"what": "memory and the look across"} | timed(lambda s=sight, n=network, st=tick: n.memory(s, st), repeats)


def trm_rows(repeats: int) -> Iterator[dict]:
    for name in ("tiny", "57m", "89m"):
        for variant in ("float32", "int8"):
            trm = TRM(SIZES[name]).eval()
            size = parameters(trm.net)
            if variant == "int8":
                compression.quantise(trm)
                for module in trm.modules():
                    if isinstance(module, Int8Linear):
                        module.pack()
            for streams in (1, 8):
                x, carry = torch.randn(streams, 1, trm.knobs.width), trm.start(streams)
                yield {"part": "trm", "what": name, "parameters": size, "variant": variant, "streams": streams} | timed(
                    lambda t=trm, x=x, c=carry: t(x, c), repeats if name == "tiny" else max(3, repeats // 4))


def backbone_rows(repeats: int) -> Iterator[dict]:
    for name in ("tiny", "vit-s14", "vit-l14", "swin-l"):
        backbone = build(name)
        frames = torch.zeros(1, backbone.size_px, backbone.size_px, 3, dtype=torch.uint8)
        yield {"part": "backbone", "what": name, "parameters": parameters(backbone)} | timed(lambda b=backbone, f=frames: b(f), max(3, repeats // 5))


def hours_rows(repeats: int, hours: float = 2.0, window: int = 96) -> Iterator[dict]:
    """The packaged memory on one city of 48 s, seen once and shown again and again: medians of CPU ms a round of eight frames, of bytes carried and
    of the process's memory, in each tenth of the stream."""
    network = load(repository_root() / "data" / "city-base")
    sight = record(network, City(6_000_000, frames=4 * window)).sight.map(lambda x: x.float())
    state, windows, rows = network.memory.start(sight.scene.shape[1]), max(10, round(hours * 3600 * FPS / window)), []
    for start in range(0, windows * window, window):
        used, at = time.thread_time(), start % (4 * window)
        _, state = network.memory(sight.map(lambda x, at=at: x[at:at + window]), state)
        carried = sum(tensor.nbytes for tensor in state.tensors().values())
        rows.append((1e3 * (time.thread_time() - used) / window, carried, psutil.Process().memory_info().rss / 1e6))
        done = start // window + 1
        if done * 10 // windows > (done - 1) * 10 // windows:  # a tenth is over
            cpu_ms, carried, memory_mb = (statistics.median(values) for values in zip(*rows, strict=True))
            rows = []
            yield {"part": "hours", "what": f"tenth{done * 10 // windows}", "hours": hours, "streams": sight.scene.shape[1],
                   "rounds": done * window, "cpu_ms": round(cpu_ms, 3), "state_bytes": carried, "memory_mb": round(memory_mb, 1)}


PARTS = {"network": network_rows, "trm": trm_rows, "backbones": backbone_rows, "hours": hours_rows}


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--hours", type=float, default=2.0, help="of simulated stream, for the part of that name")
    parser.add_argument("--save", type=Path, metavar="FILE.json")
    wanted = parser.parse_args(argv)
    torch.set_num_threads(1)
    found = []
    for name in [wanted.only] if wanted.only else PARTS:
        for row in hours_rows(wanted.repeats, wanted.hours) if name == "hours" else PARTS[name](wanted.repeats):
            found.append(row)
            print(json.dumps(row), flush=True)
    if wanted.save:
        old = json.loads(wanted.save.read_text())["rows"] if wanted.save.exists() else []
        new = {row["part"] for row in found}
        told = {"bench": "cameras", "command": "python -m bench.cameras", "date": datetime.date.today().isoformat()}
        files.write_json(told | {"rows": [row for row in old if row["part"] not in new] + found, **provenance({})}, wanted.save)


if __name__ == "__main__":
    main()
