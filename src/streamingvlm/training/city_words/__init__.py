"""The city's commentator: a tiny Qwen2.5-VL that streams one camera and says, second by second, what is wrong and where, and who does what.

`towns`: the cities it learns from. `lessons`: seconds of them, as they are streamed. `notes`: what the multi-camera model makes of them. `train`: how
it learns.
"""
