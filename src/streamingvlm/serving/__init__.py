"""Many live cameras in, decisions out within a budget, nothing lost unseen: scheduler, runtime, results, the page.

May know every room but reporting, workbench and the command line. Door: `live.service.Service`, which owns all streams, and `api.app.application` on
top of it. To hold and restore a stream: `replicas.replica.Replica`, `hand_over` and `take`, over `live.analyst` (what it decides) and
`streaming.commentator` (what it says). Streams move between replicas so; on one machine, or after a restart, a stream begins afresh.

The scheduler (`schedule`) is a pure core in virtual time; processes, asyncio and the network only drive it. Every frame that came in ends as a
decision or as a drop with one of the causes in `schedule.events.CAUSES`; what is neither is still in flight.
"""
