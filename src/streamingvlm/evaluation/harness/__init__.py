"""Questions about videos, asked of a stream at their time, marked and counted: the machinery that every benchmark of `evaluation.benchmarks` shares.

`protocol`: what a question and a benchmark are; `reading`: published annotation files; `extract`: what an answer says, strictly; `templates`: who
words a question; `run`: watching, asking, and going on after a kill; `answerers`: who is asked; `answers`: what was said, on disk; `summary`: means,
standard errors, the table; `pairwise`: commentary against another's; `chat`: an LLM as its judge;
`questions`: a made-up world's own questions, under every policy. Knows no benchmark by name.
"""
