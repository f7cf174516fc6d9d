"""What a service on an edge box, a workstation or a node in the cloud is set to: files in configs/profiles, under what cameras.yaml says itself.

    told = under({"cameras": [...]}, named("edge"))      # still to be checked, by `cameras.parse`

A profile has two sections of a cameras.yaml, `service` and `camera`. Knows no model and no machine.
"""

from __future__ import annotations

from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.base.paths import repository_root
from streamingvlm.serving.cameras import merged, read_yaml

FOLDER = "configs/profiles"


def named(name: str) -> dict:
    """A profile of this clone by its name, or of anybody's by its file. UserError where there is none."""
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        folder = repository_root() / FOLDER
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        if name not in known:
            raise UserError(f"There is no profile {name!r}: {', '.join(known)}, or a YAML file of your own.")
        path = folder / f"{name}.yaml"
    told = read_yaml(path)
    if not isinstance(told, dict) or set(told) - {"service", "camera"} or not all(isinstance(part, dict) for part in told.values()):
        raise UserError(f"{path} is no profile: it has sections `service:` and `camera:`, and no others.")
    return told


def under(told: object, profile: dict) -> object:
    """What a cameras.yaml says, and where it says nothing what the profile says. What is no cameras.yaml stays as it is: `parse` says so."""
    return merged(profile, {key: value for key, value in told.items() if value is not None}) if isinstance(told, dict) else told
