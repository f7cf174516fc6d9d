"""The paper's idea: how a stream is laid out in tokens (`dialogue`), which of them stay (`policy`), and their keys and values (`cache`).

Knows no model, no video and no world. Door: `policy.POLICIES`, `dialogue.Dialogue`, `cache.KVCache`.

A new policy: a pure function (retention, extents, upcoming round) -> Plan or None, and one line in `policy.POLICIES`; the command, the pipeline, the
lessons and the sweeps then know it by its name. A new refresh: one line in `policy.REFRESH`.
"""
