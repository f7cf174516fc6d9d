"""The timed loop: forget, look, read, speak (`stream`), many streams in one pass (`batching`), a question at any moment (`ask`), captions on disk, a
look inside (`trace`).

With `context` and `models` the part that people come to read. Knows no video file and no world. Door: `stream.Streamer`, `batching.run_batched`; many
streams that come, pause and go on: `commentator.Commentator` (`save`, `leave`, `restore`).

To ask: `streamer.ask("who plays?")` between two chunks, `options=` to choose among, `reencode_frames=4` to show the newest seconds again (the stream
then needs `recall_rounds=4`); many streams at once: `run_batched(vlm, [ask_round(streamer, Question("who plays?")) for streamer in streamers])`. To
wish: `streamer.tell("only goals")`. A new way to answer: a function from a fork and the state behind the question, beside `ask._weigh`.
"""
