"""Generate the Python of `streamingvlm.proto`, messages, their types and the stub, into the source tree or another folder. Knows only protoc.

    python -m streamingvlm.serving.api.proto.generate [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from streamingvlm.base.errors import UserError

SOURCE = Path(__file__).parents[4]
PROTO = Path(__file__).with_name("streamingvlm.proto")


def generate(folder: Path = SOURCE) -> list[Path]:
    """Write the generated modules below `folder`, at their place in the package -> the modules. UserError where the contract is wrong."""
    from grpc_tools import protoc

    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{SOURCE}", *outputs, str(PROTO)]):
        raise UserError(f"{PROTO.name} is wrong: protoc says above where.")
    return sorted((folder / PROTO.parent.relative_to(SOURCE)).glob("*_pb2*.py*"))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE)
