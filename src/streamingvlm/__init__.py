"""The StreamingVLM workbench. Rooms, each of which may import only those before it: base, media, context, models, streaming, data, worlds, training,
evaluation, serving, reporting, workbench, cli."""
