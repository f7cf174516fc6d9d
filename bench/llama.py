"""llama.cpp for `peers.py`: a language model's weights as a GGUF file, and one stream on it. Needs the packages `gguf` and `llama-cpp-python`.

The file is of llama.cpp's architecture `qwen2`: the decoder of Qwen2.5-VL with one position per token instead of three, which for text is the same
arithmetic. Whether the architecture `qwen2vl`, with three, may do what a stream needs, `can_shift` asks the library itself.
The shared library of another build: LLAMA_CPP_LIB_PATH, which `llama-cpp-python` reads. Knows neither torch's cache nor a clock.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamingvlm.base.errors import UserError
from streamingvlm.models.qwen25 import gguf

KINDS = ("F32", "F16", "Q8_0")
OF_TOP, OF_LAYER = ({ours: theirs for theirs, ours in table.items()} for table in (gguf.TOP, gguf.LAYER))


def name_of(name: str) -> str:
    """transformers' name of a language model's weight -> GGUF's."""
    module, _, kind = name.replace("model.language_model.", "model.").rpartition(".")
    if module in OF_TOP:
        return f"{OF_TOP[module]}.{kind}"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{OF_LAYER[part]}.{kind}"


def weights(hf: torch.nn.Module) -> dict[str, Tensor]:
    """The language model's weights and the output layer's by GGUF's names."""
    return {name_of(name): tensor for name, tensor in hf.state_dict().items() if "visual" not in name}


def write(path: Path, text: object, tensors: Mapping[str, Tensor], kind: str, architecture: str = "qwen2") -> None:
    """Weights as a GGUF file without a vocabulary. `text`: the text config; matrices in `kind`, norms and biases in float32."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    out = GGUFWriter(path, architecture)
    out.add_tokenizer_model("none")
    out.add_vocab_size(text.vocab_size)
    out.add_context_length(text.max_position_embeddings)
    out.add_embedding_length(text.hidden_size)
    out.add_block_count(text.num_hidden_layers)
    out.add_feed_forward_length(text.intermediate_size)
    out.add_head_count(text.num_attention_heads)
    out.add_head_count_kv(text.num_key_value_heads)
    out.add_layer_norm_rms_eps(text.rms_norm_eps)
    out.add_rope_freq_base(text.rope_parameters["rope_theta"])
    if architecture == "qwen2vl":
        out.add_rope_dimension_sections([*text.rope_parameters["mrope_section"], 0])
    quantised = GGMLQuantizationType[kind]
    for name, tensor in tensors.items():
        array = tensor.detach().float().numpy()
        if array.ndim == 1:
            out.add_tensor(name, array)
        else:
            out.add_tensor(name, quants.quantize(array, quantised), raw_dtype=quantised)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


class Llama:
    """A GGUF file and one stream on it. `kind`: its matrices'; keys and values are float32 beside F32 and half precision otherwise, its default."""

    def __init__(self, path: Path, kind: str, context: int, threads: int):
        api = self.api = library()
        self._model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
        asked = api.llama_context_default_params()
        asked.n_ctx, asked.n_threads, asked.n_threads_batch = context, threads, threads
        if kind == "F32":
            asked.type_k = asked.type_v = 0  # GGML_TYPE_F32
        self._context = self._model and api.llama_init_from_model(self._model, asked)
        if not self._context:
            raise UserError(f"llama.cpp could not load {path}; try another release of `llama-cpp-python`.")
        self.memory, self.vocabulary = api.llama_get_memory(self._context), api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))

    def forward(self, ids: Sequence[int]) -> int:
        """Feed ids behind what is cached -> the likeliest next id."""
        array = (self.api.llama_token * len(ids))(*ids)
        if self.api.llama_decode(self._context, self.api.llama_batch_get_one(array, len(ids))):
            raise UserError("llama.cpp refused a batch; give it more room than --cached and a chunk.")
        logits = self.api.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (self.vocabulary,)).argmax())

    def evict(self, first: int, count: int) -> None:
        """Forget tokens first .. first + count; what is behind moves up, which llama.cpp does with the next forward."""
        self.api.llama_memory_seq_rm(self.memory, 0, first, first + count)
        self.api.llama_memory_seq_add(self.memory, 0, first + count, -1, -count)

    @property
    def can_shift(self) -> bool:
        return bool(self.api.llama_memory_can_shift(self.memory))

    def close(self) -> None:
        self.api.llama_free(self._context)
        self.api.llama_model_free(self._model)


def library():
    """The package's functions, silent. UserError where it is not installed."""
    try:
        import gguf  # noqa: F401
        import llama_cpp.llama_cpp as api
    except ImportError as error:
        raise UserError(f"`{error.name}` is not installed: pip install llama-cpp-python gguf.") from None
    api.llama_backend_init()
    api.llama_log_set(silence(), ctypes.c_void_p(0))
    return api


@functools.cache  # the library calls it for as long as this process lives
def silence():
    import llama_cpp.llama_cpp as api

    return api.llama_log_callback(lambda level, text, data: None)
