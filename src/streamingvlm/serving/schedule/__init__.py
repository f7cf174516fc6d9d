"""Which frame is decided next, and which never: a pure scheduler in virtual time, and what drives it there. Knows no clock, process, socket or model.

Door: `scheduler.Scheduler`, told by `events`. `virtual.drive` drives it through an hour in seconds, `replay` through a recorded run; `capacity` asks
how many streams a machine takes. A new policy of dropping or of batching is a method of `scheduler` or `stream_queue`.
"""
