"""A tiny Qwen2.5-VL that is asked about every frame of every camera on its own: what a model without streams, memory and neighbours can say.

`grammar`: what it says. `prompt`: how it is asked. `batches`: what it learns from. `train`: how.
"""
