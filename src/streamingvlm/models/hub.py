"""The Hugging Face hub: a model's name -> the folder its files are in. Knows no tensor, and asks the network only when it is called."""

from __future__ import annotations

from pathlib import Path

from streamingvlm.base.errors import UserError


def folder(name: str) -> Path:
    """The folder into which the hub's model was downloaded, now or earlier. One question without retries first: offline, the answer comes at once."""
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError

    try:
        HfApi().model_info(name, timeout=10)
        reachable = True
    except GatedRepoError:
        raise UserError(f"The hub gives `{name}` only to those who agreed to its terms: agree on its page, then `hf auth login`.") from None
    except (OSError, ValueError, httpx.HTTPError):
        reachable = False
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"], local_files_only=not reachable))
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise UserError(f"There is no model folder `{name}`, and the hub has no such model or cannot be reached from here; "
                        "name a local folder, or connect and try again.") from error
