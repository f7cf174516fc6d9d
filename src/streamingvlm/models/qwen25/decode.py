"""One token for each of B streams, with shapes that never change: what a CUDA graph can record once and replay, and torch.compile can fuse.

The caches of the streams lie in one `Pool`. A step reads one small tensor of inputs (the id, position and slot of each stream's token), writes keys,
values and positions into their slots, and attends over the pool's whole capacity with what lies behind a token's own slot hidden: the capacity is the
bucket, and where it grows the step is recorded again. A stream that says nothing more is computed along; what comes of it lands in its next free
slot, where its next token overwrites it. Knows no chat token, no policy and no clock.
Letters: B streams, H heads, K kv heads, G = H/K heads that share one, S capacity, C keys of a part, D head dim, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from streamingvlm.context.cache import KVCache, Pool, Rope, rotate
from streamingvlm.models.qwen25.fused import Block

MODES = ("auto", "eager", "graph", "compile")
PART = 256  # keys: few queries over many keys are split into parts of that many, or four kv heads would keep four of a GPU's 132 processors busy
TRIES = 3  # of a step before it is recorded: libraries and the compiler set themselves up


@dataclass(frozen=True)
class DecodeToken:
    """One new text token of one stream: its id, and its position on all three axes."""

    id: int
    position: float
    cache: KVCache


class Decoder:
    """Decode steps of one language model. `mode`: eager (no static step), graph (a CUDA graph of it; on a CPU the plain static step), compile
    (the same through torch.compile), auto (graph on CUDA, eager on a CPU)."""

    def __init__(self, model: nn.Module, rope: Rope, blocks: Sequence[Block], mode: str = "auto"):
        self.model, self.rope, self.blocks = model, rope, blocks
        self.device = model.embed_tokens.weight.device
        self.mode = ("graph" if self.device.type == "cuda" else "eager") if mode == "auto" else mode
        self._step = torch.compile(self.step, fullgraph=True) if self.mode == "compile" else self.step
        self._records: WeakKeyDictionary[Pool, GraphStep] = WeakKeyDictionary()  # a pool's goes with the pool
        self._recorder = Recorder(self.device) if self.device.type == "cuda" and self.mode != "eager" else None

    @torch.inference_mode()  # with gradients on, a compiler can't take a step that writes into its inputs, and a graph would record them
    def prepare(self, caches: Sequence[KVCache], tokens: int) -> None:
        """Make room for `tokens` in all of these caches, side by side, and record the step that serves them. Quick if nothing has changed."""
        if self.mode == "eager":
            return
        pool, tokens = caches[0].pool, -(-tokens // PART) * PART
        if {id(cache.pool) for cache in caches} != {id(pool)} or len(caches) != len(pool.lengths):
            pool = Pool.of(caches, max(tokens, -(-max(cache.capacity for cache in caches) // PART) * PART))
        elif pool.capacity < tokens or pool.capacity % PART:
            pool.grow(max(tokens, -(-pool.capacity // PART) * PART))
        if pool not in self._records or self._records[pool].store is not pool.store:
            self._records.pop(pool, None)  # its memory first
            self._records[pool] = GraphStep(self._step, pool, self._recorder)

    def ready(self, words: Sequence[object]) -> bool:
        """Whether one recorded step can compute all of `words`."""
        if self.mode == "eager" or not all(isinstance(word, DecodeToken) for word in words):
            return False
        pool = words[0].cache.pool
        record = self._records.get(pool)
        return (record is not None and record.store is pool.store and all(word.cache.pool is pool for word in words)
                and max(pool.lengths) < pool.capacity)

    def __call__(self, words: Sequence[DecodeToken]) -> list[Tensor]:
        """Compute `words` -> the final hidden state [1, E] of each. Their keys and values join their caches."""
        pool = words[0].cache.pool
        ids, places, slots = [0] * len(pool.lengths), [0] * len(pool.lengths), pool.lengths[:]
        for word in words:
            ids[word.cache.row], places[word.cache.row] = word.id, word.position
            word.cache.length += 1
        hidden = self._records[pool](torch.tensor([ids, places, slots], dtype=torch.float64))  # [B, E]
        return [hidden[word.cache.row, None] for word in words]

    def step(self, store: Tensor, positions: Tensor, inputs: Tensor) -> Tensor:
        """store [3, L, B, K, S, D], positions [3, B, S]; inputs [3, B] float64: id, position and slot of each token -> final hidden states [B, E]."""
        ids, places, slots = inputs[0].long(), inputs[1].float(), inputs[2].long()
        B, K, S, D = store.shape[2:]
        rows = torch.arange(B, device=store.device)
        positions[:, rows, slots] = places
        hidden = torch.arange(S, device=store.device) > slots[:, None]  # [B, S]
        bias = torch.zeros(B, 1, S, device=store.device).masked_fill(hidden[:, None], float("-inf"))
        x = self.model.embed_tokens(ids)  # [B, E]
        cos, sin = (part[:, None].to(x.dtype) for part in self.rope.angles(places.expand(3, B)))  # [B, 1, D]
        for i, block in enumerate(self.blocks):
            qkv = block.project(x).view(B, -1, D)  # [B, H + 2K, D]
            turned = rotate(qkv[:, :-K], cos, sin)  # [B, H + K, D]
            store[:, i][:, rows, :, slots] = torch.stack((qkv[:, -2 * K : -K], turned[:, -K:], qkv[:, -K:]), dim=1)  # [B, 3, K, D]
            x = block.finish(x, attend(turned[:, :-K], store[1, i], store[2, i], bias))
        return self.model.norm(x)


def attend(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """One query a stream: q [B, H, D] over keys and values [B, K, S, D], whole tensors, with bias [B, 1, S] -> [B, H * D].

    Scores, softmax and sums are float32. No key and no value is copied: every view below is of the pool itself."""
    (B, H, D), K, S = q.shape, keys.shape[1], keys.shape[2]
    scores = product(q.reshape(B * K, H // K, D), keys.view(B * K, S, D).mT)  # [B * K, G, S]
    weights = (scores.view(B, H, S) * D**-0.5 + bias).softmax(dim=-1).to(values.dtype)
    parts = weights.view(B * K, H // K, -1, PART).transpose(1, 2).flatten(0, 1)  # [B * K * S/C, G, C]
    out = product(parts, values.view(-1, PART, D))  # [B * K * S/C, G, D]
    return out.view(B * K, -1, H // K, D).sum(1).to(q.dtype).view(B, H * D)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, batched, with float32 results whatever the dtype."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())


class Recorder:
    """Where one decoder's CUDA graphs are recorded: a stream of their own and the memory that all of them share, since one is replayed at a time.

    The memory belongs to the graphs recorded into it: were the last of them to go, torch would refuse the next recording, for as long as one block of
    it lives (the products' workspace of the recording stream does). So one graph that does nothing is kept as long as the decoder."""

    def __init__(self, device: torch.device):
        self.stream, self.memory, self._keeper = torch.cuda.Stream(device), torch.cuda.graph_pool_handle(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._keeper, pool=self.memory, stream=self.stream):
            self._kept = torch.zeros(1, device=device)

    def record(self, run: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Try `run` a few times, then record it -> its graph, and the tensor that each replay writes."""
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            for _ in range(TRIES):
                run()
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.memory, stream=self.stream):
            out = run()  # [B, E]
        return graph, out


class GraphStep:
    """A step of one pool: its static inputs and outputs and, on CUDA, the graph between them. Refers to nothing that refers to it: a pool of
    gigabytes must go when its last stream goes, not when Python next looks for cycles."""

    def __init__(self, step: Callable[[Tensor, Tensor, Tensor], Tensor], pool: Pool, recorder: Recorder | None):
        self.store, self.positions, self._step = pool.store, pool.positions, step
        self.inputs = torch.tensor([pool.lengths] * 3, dtype=torch.float64, device=pool.store.device)  # [3, B]: whatever is tried, in free slots
        self.inputs[:2] = 0
        self._graph, self._out = recorder.record(self._run) if recorder else (None, None)

    def _run(self) -> Tensor:
        return self._step(self.store, self.positions, self.inputs)

    def __call__(self, inputs: Tensor) -> Tensor:
        self.inputs.copy_(inputs, non_blocking=True)
        if self._graph is None:
            return self._run()
        self._graph.replay()
        return self._out.clone()  # the next replay, of this graph or of one that shares its memory, writes over it
