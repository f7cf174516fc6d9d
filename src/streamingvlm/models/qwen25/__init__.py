"""Qwen2.5-VL: transformers' own weights and modules, with our loops over the layers. `loading` is the door; `vlm` is what a stream drives."""
