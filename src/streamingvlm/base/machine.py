"""Where a number comes from: hardware, versions, git revision, a hash of the params. Asks; decides nothing."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root


def provenance(params: dict) -> dict:
    """Where a number comes from: machine, versions, git revision, and a hash of the params that made it."""
    frozen = json.dumps(params, sort_keys=True, default=str).encode()
    return {"hardware": hardware(), "versions": versions(), "git": revision(), "params_hash": hashlib.sha256(frozen).hexdigest()[:12]}


def hardware() -> dict:
    """{cpu, cores, ram_gib, gpu, text}: the cores this process may use, not those the machine has."""
    import psutil
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    found = {"cpu": names[0] if names else platform.processor() or platform.machine(),
             "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
             "ram_gib": round(psutil.virtual_memory().total / 2**30),
             "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}
    return {**found, "text": f"{found['cpu']}, {found['cores']} cores, {found['ram_gib']} GiB, {found['gpu'] or 'no GPU'}"}


def versions() -> dict:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in ("torch", "transformers")}}


def revision() -> dict:
    """{revision, dirty}, dvc.lock aside, which a run writes; "unknown" without git or a repository, because a report must not fail for that."""
    try:
        run = [subprocess.run(["git", *words], cwd=repository_root(), capture_output=True, text=True, check=True, timeout=20).stdout.strip()
               for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", ".", ":!dvc.lock"])]
    except (OSError, subprocess.SubprocessError, UserError):
        return {"revision": "unknown", "dirty": "unknown"}
    return {"revision": run[0], "dirty": bool(run[1])}
