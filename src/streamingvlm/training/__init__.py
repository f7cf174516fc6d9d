"""Windows to learn from, the resumable loop, the base's pretraining, overlapped SFT. Knows no policy but the one cut that streaming makes too.

Door: `sft.trainer`, `pretrain.trainer`, `loop.Trainer`.
"""
