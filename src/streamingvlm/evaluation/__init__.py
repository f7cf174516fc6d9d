"""Who watches what (`runs`), who commentates better (`judge`), what is answered (`benchmarks`, the public ones; `harness` asks and marks them, and a
world's own questions), and what that says of the published claims (`claims`, the numbers it is given: `ledger_inputs`, its text: `ledger_text`).
Knows no picture and no page.

Door: `runs.stream_row`, `judge.win_rate`, `benchmarks.get`, `claims.ledger`. `judge` follows the protocol of Inf-Streams-Eval, but has
seen none of its data.

A new metric: a key of `worlds.match.scoring.score_all`, `METRICS`, `figures.SCORES`, lesson 5's `KEYS`; the ledger has it then, the page's table of
qualities too if it is named in `reporting.report_page.QUALITIES`. A new claim: a row of claims.yaml, with its decisive check marked. A new
benchmark: `benchmarks` says how.
"""
