"""Windows to learn from, the resumable loop, the base's pretraining, overlapped SFT. Knows no policy but the one cut that streaming makes too.

Door: `sft.trainer`, `pretrain.trainer`, `loop.Trainer`. The loss is `loop.CommentaryLoss`, what learns is said by `sft.trainer`, and which tokens of
a window count by `windowing`. SFT learns all but the vision tower (`sft.tune_vision`), or LoRA layers of the language model alone (`sft.tune`).
"""
