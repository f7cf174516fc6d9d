"""What every room may use: params, paths, whole files, the clock and counters, the machine, progress, and the records that rooms hand each other.

Knows no video, no model and no word. Door: `config.load`, `errors.UserError`, `records.Chunk` and `Comment`.
"""
