"""The kinds of cameras that are the service's own and no matter of `media.sources`: by the beginning of an address, what makes a source of it."""

from __future__ import annotations

from streamingvlm.serving.intake.city import CityCamera
from streamingvlm.serving.intake.pushed import Pushed

KINDS = {"push": Pushed, "city": CityCamera}
