"""Stream rows, the contract between the stages, and the published formats that become such rows. Knows files and words; no model and no world.

Door: `stream_rows.read` and `write`, `formats`.
"""
