"""The match: two teams, a ball, a score that is never drawn. `game` decides and says, `rendering` draws, `scoring` counts what was right,
`questions` knows what can be asked.

Door: `game.Match`, `dataset.match_rows`, `scoring.score_all`.
"""
