"""Joules that this machine's own counters tell: Intel's and AMD's RAPL, NVIDIA's NVML. Where there is none, or it may not be read, it says so.

    with energy.metered() as spent:
        ...
    spent.joules, spent.source        # None and the reason, where it is unknown: nothing is ever estimated

RAPL counts whole packages, whatever runs on them, and Linux lets only root read it; a virtual machine has none. NVML counts the whole GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass
class Spent:
    """`joules`: None if unknown; `source`: which counters, or why there is none."""

    joules: float | None = None
    source: str = ""

    def of(self, pieces: int) -> dict:
        """As a bench writes it: all of it, and a piece's share."""
        each = None if self.joules is None else round(self.joules / max(1, pieces), 3)
        return {"joules": self.joules, "joules_each": each, "source": self.source}


@contextmanager
def metered(powercap: Path = POWERCAP, device: str = "cpu") -> Iterator[Spent]:
    """What is spent within, by the GPU's counter on `cuda`, else by the processor's."""
    spent = Spent()
    read, spent.source = _nvml() if device == "cuda" else _rapl(powercap)
    before = read() if read else {}
    yield spent
    if read:
        spent.joules = round(sum((after - before[name]) % wraps for name, (after, wraps) in _with_ranges(read(), powercap).items()) / 1e6, 3)


def _rapl(powercap: Path):
    """Packages only: their cores' counters are part of them."""
    found = [folder for folder in sorted(powercap.glob("intel-rapl:*")) if folder.name.count(":") == 1]
    if not found:
        return None, "unknown: no RAPL counter here, as in most virtual machines"
    try:
        (found[0] / "energy_uj").read_text()
    except PermissionError:
        return None, "unknown: RAPL counters may be read by root only"
    return (lambda: {folder.name: int((folder / "energy_uj").read_text()) for folder in found}), "RAPL, whole packages"


def _with_ranges(read: dict[str, int], powercap: Path) -> dict[str, tuple[int, int]]:
    """Each counter with where it starts anew."""
    def wraps(name: str) -> int:
        file = powercap / name / "max_energy_range_uj"
        return int(file.read_text()) if file.is_file() else 1 << 63

    return {name: (value, wraps(name)) for name, value in read.items()}


def _nvml():
    try:
        import pynvml  # the package nvidia-ml-py, which some installations of torch bring
    except ImportError:
        return None, "unknown: pip install nvidia-ml-py, then NVML tells"
    try:
        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except pynvml.NVMLError as error:
        return None, f"unknown: NVML says {error}"
    return (lambda: {"gpu": pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) * 1000}), "NVML, the whole GPU"  # it counts millijoules
