"""Models: Qwen2.5-VL in any size (`qwen25`), and where its files come from (`hub`). Knows the cache it writes; no policy, no clock and no world.

Door: `qwen25.loading.load` and `build` -> `qwen25.vlm.VLM`.
"""
