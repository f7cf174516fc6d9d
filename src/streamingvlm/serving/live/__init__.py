"""The service at work on one machine: a process that decides, one that speaks, and the loop that drives the scheduler with what `intake` reads.

Door: `service.Service`. May know everything that `serving` may. Frames go from process to process through shared memory (`serving.slots`), all else
as messages (`serving.processes`). `analysis`, `commentary` and `demo` run in processes of their own, the rest in the main one, beside the API.
"""
