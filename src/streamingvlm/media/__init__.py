"""A video file -> timestamped frames in chunks, and frames -> a file. Knows containers, codecs and clocks; no model and no text.

Door: `reader.read_chunks`, `reader.probe`, `writer.write_h264`.

A new live source: see `sources`. Whoever has `base.records.Chunk`s can stream them: `Streamer.stream_chunks(name, chunks)`; `clock.paced` gives them
a clock, and `watchdog.fail_if_silent` an end where they fall silent.
"""
