"""Who watches what (`runs`), who commentates better (`judge`, `chat`), and what that says of the published claims (`claims`, `ledger_inputs`).

Door: `runs.stream_row`, `judge.win_rate`, `claims.ledger`.

A new metric: one line in the world's `scoring.METRICS`; tables, figures, the page and the ledger's numbers take it from there. A new claim: a row of
claims.yaml.
"""
