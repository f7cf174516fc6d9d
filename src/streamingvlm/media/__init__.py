"""A video file -> timestamped frames in chunks, and frames -> a file. Knows containers, codecs and clocks; no model and no text.

Door: `reader.read_chunks`, `reader.probe`, `writer.write_h264`.

A new source: one module here that yields `base.records.Chunk` and raises `UserError` in a sentence; `clock.paced` gives it a clock, and
`watchdog.fail_if_silent` an end where it falls silent. Whoever has chunks can stream them: `Streamer.stream_chunks(name, chunks)`.
"""
