"""Files that are complete or not there: a kill leaves the old file or the new one, never half of one. Knows nothing of what is in them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from streamingvlm.base.errors import UserError


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """What a page that stands alone holds in place of a link to a file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def printable(name: str) -> str:
    """A file's name as text: what of it is not UTF-8 becomes U+FFFD, since no text file or page can hold it."""
    return os.fsencode(name).decode(errors="replace")


def target(path: Path) -> Path:
    """The file that is written where `path` is: the one it links to, there already or not, as an editor would. A link stays a link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def write(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes, folders above included. UserError where that cannot be done."""
    place = target(path)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, place)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(f"Can't write {path}: {error.strerror or error}.") from None


def write_json(value, path: Path) -> None:
    """The same bytes for the same value."""
    write(path, json.dumps(value, indent=1) + "\n")


def write_lines(rows: Sequence[dict], path: Path) -> None:
    """JSON lines."""
    write(path, "".join(json.dumps(row) + "\n" for row in rows))


def fingerprint(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
