"""Questions about videos, asked of a stream at their time, marked and counted: the machinery that every benchmark of `evaluation.benchmarks` shares.

`protocol`: what a question and a benchmark are; `reading`: published annotation files; `extract`: what an answer says, strictly; `run`: watching,
asking, and going on after a kill; `answerers`: who is asked; `summary`: means, standard errors, the table. Beside it `questions`: those of a made-up
world, whose truth is known, under every policy. Knows no benchmark by name.
"""
