"""Which tokens stay: pure functions from the lengths of spans to a plan. Knows roles, rounds and lengths; no tensor, no token id, no model.

Before each chunk the stream asks its policy for a plan: the pieces of the present sequence that stay, in their new order, and whether they are
given new positions (contiguous RoPE) or are computed again from scratch. `None` means that nothing changes.

    plan = POLICIES["streaming"].plan(windows, extents, upcoming=17)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from streamingvlm.base.config import Retention
from streamingvlm.base.errors import UserError
from streamingvlm.context import dialogue as d


@dataclass(frozen=True)
class Extent:
    """A span as a policy sees it."""

    role: str
    round: int
    length: int


@dataclass(frozen=True)
class Piece:
    """Tokens [start, stop) of span number `span`, kept under a (possibly new) role and round."""

    span: int
    start: int
    stop: int
    role: str
    round: int


@dataclass(frozen=True)
class Plan:
    """`reposition`: give what stays contiguous positions from 0. `recompute`: forget all keys and values and prefill what stays again."""

    pieces: tuple[Piece, ...]
    reposition: bool = True
    recompute: bool = False


Planner = Callable[[Retention, Sequence[Extent], int], Plan | None]  # windows, the spans as they are, the upcoming round


@dataclass(frozen=True)
class Policy:
    """`planner`: the pure function. `overrides`: what this policy changes of the configured retention. `needs_pixels`: it needs the pixels it keeps.
    `forgets` is False where there is never a plan to make: the baseline that keeps everything must not pay for asking.
    `verbatim`: an end token other than the turn's own stays where it was said, before the end that is then added."""

    name: str
    about: str
    planner: Planner
    overrides: tuple[tuple[str, int | str], ...] = ()
    needs_pixels: bool = False
    forgets: bool = True
    verbatim: bool = False

    def plan(self, cache: Retention, extents: Sequence[Extent], upcoming: int) -> Plan | None:
        """The plan before round `upcoming` (0-based) is appended to `extents`, or None if all stays as it is."""
        return self.planner(self.effective_retention(cache), extents, upcoming)

    def effective_retention(self, cache: Retention) -> Retention:
        """What holds under this policy."""
        return replace(cache, **dict(self.overrides))


def _whole(extents: Sequence[Extent], at: int) -> Piece:
    return Piece(at, 0, extents[at].length, extents[at].role, extents[at].round)


def sink_and_window(pieces: Sequence[Piece], sink: int, window: int) -> list[Piece]:
    """Cut a run of pieces to its first `sink` and last `window` tokens; nothing is cut, and nothing said twice, while it fits."""
    total = sum(piece.stop - piece.start for piece in pieces)
    if total <= sink + window:
        return list(pieces)
    out, at = [], 0
    for piece in pieces:
        n = piece.stop - piece.start
        head, tail = min(max(sink - at, 0), n), min(max(at + n - (total - window), 0), n)
        if head:
            out.append(replace(piece, stop=piece.start + head))
        if tail:
            out.append(replace(piece, start=piece.stop - tail))
        at += n
    return out


def _streaming(cache: Retention, extents: Sequence[Extent], upcoming: int) -> Plan | None:
    """The paper's method, clean: system + text sink + text window + the last rounds whole. The words of a round that leaves join the previous text;
    a pinned query moves to the oldest round that stays, where training put it, and with it the newest wish: an older one leaves with its round."""
    oldest = upcoming - cache.vision_rounds + 1
    leaving = [i for i, e in enumerate(extents) if d.HEADER < e.round < oldest]
    if not leaving:
        return None
    previous = [_whole(extents, i) for i, e in enumerate(extents) if e.role == d.PREVIOUS]
    previous += [replace(_whole(extents, i), role=d.PREVIOUS, round=d.HEADER) for i in leaving if extents[i].role == d.SAID]
    previous = sink_and_window(previous, cache.text_sink, cache.text_window)
    wish = max((i for i, e in enumerate(extents) if e.role == d.WISH), default=-1)
    query = [replace(_whole(extents, i), round=max(oldest, 0)) for i in leaving if (extents[i].role == d.QUERY or i == wish) and cache.pin_query]
    pieces: list[Piece] = []
    for i, e in enumerate(extents):
        if e.role == d.PREVIOUS_CLOSE:
            pieces += previous
        if e.role == d.PREVIOUS or i in leaving:
            continue
        pieces.append(_whole(extents, i))
        if e.role == d.VISION and query:
            pieces, query = pieces + query, []
    # With a single round kept there is no older round left to hold the query: the stream asks it again with the next one.
    return Plan(tuple(piece for piece in pieces if piece.stop > piece.start))


def growing(planner: Planner) -> Planner:
    """What `planner` keeps, at the positions it had: what leaves, leaves a hole, and new tokens go on behind the largest position ever used.

    Two names for one thing: the paper's native RoPE (its released code's `append`), and the gaps of serving engines that evict and move nothing. A
    key keeps its rotation in both, and attention sees differences of positions alone, so there is no third row between contiguous and growing."""
    def plan(cache: Retention, extents: Sequence[Extent], upcoming: int) -> Plan | None:
        kept = planner(cache, extents, upcoming)
        return kept and replace(kept, reposition=False)
    return plan


def recomputed(planner: Planner) -> Planner:
    """What `planner` keeps, computed again from scratch before every chunk."""
    def plan(cache: Retention, extents: Sequence[Extent], upcoming: int) -> Plan | None:
        everything = Plan(tuple(_whole(extents, i) for i in range(len(extents))))
        return replace(planner(cache, extents, upcoming) or everything, recompute=True) if extents else None
    return plan


def _window(cache: Retention, extents: Sequence[Extent], upcoming: int) -> Plan | None:
    """Nothing leaves until the window is full; then everything said and seen does, and the stream starts again from its header: system prompt and the
    text from before the stream, whole."""
    if upcoming == 0 or upcoming % cache.restart_rounds:
        return None
    return Plan(tuple(_whole(extents, i) for i, e in enumerate(extents) if e.round == d.HEADER), recompute=True)


ANSWER = {d.ANSWER_OPEN, d.SAID, d.DOTS, d.END, d.GAP}  # the assistant's turn, with the newline behind it


def _upstream(cache: Retention, extents: Sequence[Extent], upcoming: int) -> Plan | None:
    """The released inference, token for token (mit-han-lab/streaming-vlm at a940d8c), with its two windows: text stays t rounds, vision v.

    Of a round, what was said and its `Time=` leave after t rounds, the video after v, and what is left of the user's turn (the query too: no
    later round gets it) after the larger of the two. What was said joins the previous text less its last token, taken to be ` ...` even where it
    is a word. The previous text is then cut to its first `sink` and last `window - 1` tokens, before the first eviction too."""
    v, t = cache.vision_rounds, cache.text_rounds or cache.vision_rounds
    stays = dict.fromkeys(ANSWER | {d.TIME}, t) | {d.VISION: v}
    leaving = {i for i, e in enumerate(extents) if d.HEADER < e.round <= upcoming - stays.get(e.role, max(v, t))}
    said = [_whole(extents, i) for i in sorted(leaving) if extents[i].role in {d.SAID, d.DOTS}]
    said = sink_and_window(said, sum(piece.stop for piece in said) - 1, 0) if said else []
    previous = [_whole(extents, i) for i, e in enumerate(extents) if e.role == d.PREVIOUS]
    previous += [replace(piece, role=d.PREVIOUS, round=d.HEADER) for piece in said]
    if upcoming:  # window 0 is taken as 1: at 0 the released code deletes the token that closes this text and takes a later one for it
        previous = sink_and_window(previous, cache.text_sink, max(cache.text_window - 1, 0))
    pieces: list[Piece] = []
    for i, e in enumerate(extents):
        if e.role == d.PREVIOUS_CLOSE:
            pieces += previous
        if e.role != d.PREVIOUS and i not in leaving:
            pieces.append(_whole(extents, i))
    kept = tuple(piece for piece in pieces if piece.stop > piece.start)
    return Plan(kept) if sum(p.stop - p.start for p in kept) < sum(e.length for e in extents) else None


def _full(cache: Retention, extents: Sequence[Extent], upcoming: int) -> Plan | None:
    return None


POLICIES = {
    policy.name: policy
    for policy in (
        Policy("streaming", "the paper's method: sink + text window + the last rounds, contiguous positions", _streaming),
        Policy("full", "baseline (a): everything is kept", _full, forgets=False),
        Policy("window", "baseline (b): restarts from its header when its window is full; what was said and seen since is gone", _window),
        Policy("overlap", "baseline (c): what `streaming` keeps, recomputed before each chunk", recomputed(_streaming), needs_pixels=True),
        Policy("upstream", "the released code, token for token", _upstream, (("pin_query", False),), verbatim=True),
        Policy("upstream_growing", "`upstream`, but positions only grow", growing(_upstream), (("pin_query", False),), verbatim=True),
        Policy("upstream_recompute", "what `upstream` keeps, recomputed before each chunk", recomputed(_upstream), (("pin_query", False),),
               needs_pixels=True, verbatim=True),
        Policy("growing", "ablation: `streaming`, but positions only grow: who stays keeps its own, with gaps between", growing(_streaming)),
        Policy("no_sink", "ablation: `streaming` without a text sink", _streaming, (("text_sink", 0),)),
        Policy("no_text", "ablation: `streaming` without a text window", _streaming, (("text_window", 0),)),
        Policy("no_vision", "ablation: `streaming` that keeps no video but the newest second's", _streaming, (("vision_rounds", 1),)),
        Policy("long_vision", "ablation: `streaming` that keeps 8 seconds of video", _streaming, (("vision_rounds", 8),)),
        Policy("streaming_closing", "`streaming`; the tokens that close the previous text are computed again with each prefill", _streaming,
               (("refresh", "closing"),)),
        Policy("streaming_text", "`streaming`; the whole previous text is computed again with each prefill", _streaming,
               (("refresh", "previous_text"),)),
        Policy("streaming_said", "`streaming`; closing tokens and what was said in the rounds kept are computed again with each prefill", _streaming,
               (("refresh", "said"),)),
        Policy("streaming_rounds", "`streaming`; closing tokens and all text of the rounds kept are computed again with each prefill", _streaming,
               (("refresh", "rounds"),)),
        Policy("streaming_all_text", "`streaming`; all but the system prompt and the vision tokens is computed again with each prefill", _streaming,
               (("refresh", "all_text"),)),
    )
}


def get(name: str) -> Policy:
    """The policy of that name, or a `UserError` that lists them."""
    if name not in POLICIES:
        raise UserError(f"There is no policy `{name}`; choose one of {', '.join(POLICIES)}.")
    return POLICIES[name]


CLOSING = {d.PREVIOUS_CLOSE}


ROUNDS = {d.USER_OPEN, d.TIME, d.NOTE, d.QUERY, d.WISH, d.USER_CLOSE, d.ANSWER_OPEN,
          d.SAID, d.DOTS, d.END, d.GAP}


REFRESH = {"none": set(), "closing": CLOSING, "previous_text": {d.PREVIOUS, *CLOSING}, "said": {d.SAID, *CLOSING},
           "rounds": ROUNDS | CLOSING, "all_text": {d.PREVIOUS, *CLOSING, *ROUNDS}}
