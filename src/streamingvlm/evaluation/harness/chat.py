"""An LLM as judge of commentary: any server that speaks OpenAI's chat completions protocol, asked as the paper asks its own, in other words.

**Its verdicts are not those of the paper's judge** (gpt-5, with the prompt of the released code, streaming_vlm/eval/model_compete/judge.py): the
criteria are the same, first live tone and pace, then accuracy, but the words differ and so may the model. An answer that is neither A nor B is
"unclear", a tie that is counted; the released code takes it for a vote for B. Knows HTTP and a folder of answers, no protocol of segments.

    result = win_rate(pairs, from_environment("some-model", cache=Path("artifacts/judge")), workers=8)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from streamingvlm.base import files
from streamingvlm.base.errors import UserError
from streamingvlm.evaluation.judge import Segment, Verdict

if TYPE_CHECKING:
    import httpx

SYSTEM = ("Two live commentaries on the same stretch of video, A and B, are to be compared. You are given what a human commentator said there. "
          "First weigh which one is the better broadcast: spoken in the moment, calling the play, its pace and emotion moving with the action, "
          "more than a description of the scene. Then weigh whose details agree with the human commentary and never contradict it. "
          "Answer with a single letter, A or B, and nothing else.")
MAX_CHARS = 8000  # of each text, as in the released code
MAX_WAIT_S = 60.0
RETRIED = {408, 429}  # and every 5xx
LABEL = r"(?:(?:the|final|better|best|winner|answer|verdict|commentary|candidate|is)[\W_]+)*"


def read_verdict(answer: str) -> Verdict:
    """A or B alone, perhaps behind a label such as "Answer:" or after a model's thoughts; everything else is unclear."""
    answer = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL)
    found = re.fullmatch(rf"[\W_]*{LABEL}([AB])[\W_]*", answer, flags=re.IGNORECASE)
    return found.group(1).upper() if found else "unclear"


@dataclass(frozen=True)
class ChatJudge:
    """A judge (`judge.Judge`) that asks the server at `base_url`, which often ends in /v1.

    `cache`: a folder that keeps every answer by its request, so that an evaluation that was ended goes on where it was. The key is never in it.
    `temperature`: None for models that refuse one. Overload and lost connections are retried, each time after twice the wait.
    """

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    cache: Path | None = None
    temperature: float | None = 0.0
    timeout_s: float = 120.0
    retries: int = 5
    backoff_s: float = 1.0

    def __call__(self, segment: Segment) -> Verdict:
        named = {"Human commentary": segment.reference, "Commentary A": segment.a, "Commentary B": segment.b}
        content = "\n\n".join(f"{name}:\n{' '.join(filter(None, texts))[:MAX_CHARS]}" for name, texts in named.items())
        request = {"model": self.model, "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]}
        return read_verdict(self._kept(request if self.temperature is None else request | {"temperature": self.temperature}))

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        return httpx.Client(timeout=self.timeout_s)  # one for all questions: it keeps its connections, and threads may share it

    def _kept(self, request: dict) -> str:
        if self.cache is None:
            return self._ask(request)
        asked = {"url": self.base_url, "request": request}
        path = self.cache / f"{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()}.json"
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["answer"])
        except (OSError, ValueError, KeyError, TypeError):
            answer = self._ask(request)
        files.write(path, json.dumps(asked | {"answer": answer}, indent=1))
        return answer

    def _ask(self, request: dict) -> str:
        import httpx

        url, trouble = f"{self.base_url.rstrip('/')}/chat/completions", ""
        for attempt in range(self.retries + 1):
            wait_s = self.backoff_s * 2**attempt
            try:
                reply = self._client.post(url, json=request, headers={"Authorization": f"Bearer {self.key}"} if self.key else {})
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
                raise UserError(f"The judge cannot be asked at {url}: check the base URL, which starts with http, and the key.") from None
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                if reply.status_code not in RETRIED and reply.status_code < 500:
                    return self._answer(reply, url)
                trouble = f"it answered {reply.status_code}, {self._complaint(reply)}"
                given = reply.headers.get("retry-after", "")
                wait_s = min(float(given), MAX_WAIT_S) if re.fullmatch(r"\d+(\.\d+)?", given) else wait_s
            if attempt < self.retries:
                time.sleep(wait_s)
        raise UserError(f"The judge at {url} could not be reached in {self.retries + 1} attempts ({trouble}): start it, or try again later.")

    def _answer(self, reply: httpx.Response, url: str) -> str:
        if reply.status_code in (401, 403):
            raise UserError(f"The judge at {url} refuses the key ({reply.status_code}): set OPENAI_API_KEY to a valid one.")
        if reply.status_code != 200:
            raise UserError(f"The judge at {url} refuses the request ({reply.status_code}, {self._complaint(reply)}): check the base URL, the "
                            "model's name and the temperature.")
        try:
            return str(reply.json()["choices"][0]["message"]["content"])
        except (ValueError, KeyError, IndexError, TypeError):
            raise UserError(f"What answers at {url} does not speak the chat completions protocol: check the base URL, which often ends in /v1."
                            ) from None

    def _complaint(self, reply: httpx.Response) -> str:
        """The server's own words, in one line, without the key should they repeat it."""
        try:
            text = str(reply.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            text = reply.text
        return " ".join((text.replace(self.key, "***") if self.key else text).split())[:200] or "no reason given"


def from_environment(model: str, cache: Path | None = None, environ: Mapping[str, str] = os.environ) -> ChatJudge:
    """The judge that OPENAI_BASE_URL and OPENAI_API_KEY name; without the first it is OpenAI's own server."""
    base_url, key = (environ.get(name, "").strip() for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"))
    if not base_url and not key:
        raise UserError("No LLM judge is set up: set OPENAI_API_KEY, or OPENAI_BASE_URL to a server of your own, or take another judge.")
    return ChatJudge(base_url or "https://api.openai.com/v1", model, key, cache)
