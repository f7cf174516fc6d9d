"""The timed loop: forget, look, read, speak (`stream`), many streams in one pass (`batching`), captions on disk, a look inside (`trace`).

With `context` and `models` the part that people come to read. Knows no video file and no world. Door: `stream.Streamer`, `batching.run_batched`; many
streams that come, pause and go on: `commentator.Commentator` (`save`, `leave`, `restore`).
"""
