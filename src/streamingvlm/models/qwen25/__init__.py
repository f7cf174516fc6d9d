"""Qwen2.5-VL: transformers' own weights and modules, with our loops over the layers. `loading` is the door; `vlm` is what a stream drives.

Masks: of a prefill `context.cache.WriteSlots.bias`, of a decode step `decode`, of packed training windows `training.windowing.collate`.
"""
