"""Many live cameras in, decisions out within a budget, nothing lost unseen: scheduler, service, results, the page.

May know every room but reporting, workbench and the command line. Door: `live.service.Service`, which owns all streams, and `api.app.application` on
top of it. To save and restore a stream: `streaming.commentator` (what it says), `live.analyst` (what it decides); `replicas` do the second
when a stream moves to another machine.

The scheduler (`schedule`) is a pure core in virtual time; processes, asyncio and the network only drive it. Every frame that came in ends as a
decision or as a drop with one of the causes in `schedule.events.CAUSES`; what is neither is still in flight.
"""
