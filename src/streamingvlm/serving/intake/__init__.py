"""What reads the cameras: processes with a thread a camera, from its source to a slot in shared memory. Knows no scheduler and no model.

Door: `worker.work`, which `live.readers` starts.
"""
