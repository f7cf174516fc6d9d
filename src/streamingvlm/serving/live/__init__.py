"""The service at work on one machine: processes that read the cameras, one that decides, one that speaks, and the loop that drives the scheduler.

Door: `service.Service`. May know everything that `serving` may. Frames go from process to process through shared memory (`slots`), all else as
messages (`processes`); only `service` runs in the main process, beside the API.
"""
