"""Models: Qwen2.5-VL in any size (`qwen25`), the model of many cameras (`multicamera`), pretrained detectors (`eyes`), and where files come from
(`hub`). Knows the cache it writes; no policy, no clock and no world.

Door: `qwen25.loading.load` and `build` -> `qwen25.vlm.VLM`; `multicamera.network.load`. Masks: `context.cache.WriteSlots.bias`, `qwen25.decode`.

Another language model: a folder beside `qwen25` whose VLM has what `streaming.stream` and `streaming.batching` call (`embed`, `encode`, `forward`,
`logits`, `new_cache`, `time_step`, `tokenizer`); `streaming`, `training`, `evaluation`, `workbench`, `serving.live` and `cli` name `qwen25`.
"""
