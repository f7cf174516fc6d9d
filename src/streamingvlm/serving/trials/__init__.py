"""The service put to the test: how late its answers are and what load costs in quality, live (`trial`) and in virtual time (`load`, `rehearsal`).

May know everything else in `serving`, which knows nothing of this.
"""
