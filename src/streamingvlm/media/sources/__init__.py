"""Live sources: one camera, whatever it speaks, as pictures with the time at which each was taken. Knows no model and no scheduler.

Door: `protocol.watched`, which keeps a source connected, over what `kinds.source` makes of an address. A new kind: one module here with a class that
is a `protocol.Source`, and one line in `kinds`.
"""
