"""The tiny model's tokenizer: whole words where it knows them, bytes where it does not, and Qwen's special tokens. Lossless on any text.

A `transformers` fast tokenizer, so it is saved, loaded and used like Qwen's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
LAYOUT = ("system", "You", " are", " a", " helpful", " assistant.", "assistant", "user", "previous", " text", "Time=", ".0-", ".0s", ".5-", ".5s",
          "\n", " ...")


def build(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Each of `words` becomes a token with and without the space before it; so do the digits and the layout's own words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    known = [*LAYOUT, *(mark + word for word in (*words, *"0123456789") for mark in ("", " "))]
    pieces = ["".join(piece for piece, _ in as_bytes.pre_tokenize_str(word)) for word in known]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*SPECIAL, *alphabet, *pieces]))}
    # WordPiece without a prefix for inner pieces is plain longest match first: words, else shorter pieces, down to single bytes.
    model = models.WordPiece(vocabulary, unk_token="<|endoftext|>", continuing_subword_prefix="", max_input_chars_per_word=100_000)
    tokenizer = Tokenizer(model)
    split = pre_tokenizers.Split(Regex(r"\n| ?[^\s]+|\s"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return fast
