"""The live service: many streams in, decisions out within a budget, every frame accounted for.

Its core is pure and in virtual time (`scheduler`, `virtual`, `capacity`); what drives it with sockets and processes stands around it. Door:
`scheduler.Scheduler`.
"""
