"""Notebooks as stages, and what surrounds them: lessons' set-up and exercises, sweeps, tracking, what a stage depends on.

Door: `run_notebook`, `lesson_setup.begin`, `sweep`.

A new stage: a notebook `NN_name.ipynb` in notebooks/, a line for it in `strip`'s deps and outs, and a stage `name` in dvc.yaml with its params
and outputs; `python -m streamingvlm.workbench.stage_deps` writes what it depends on.
"""
