"""Lost pictures show by their numbers, whatever the order in which an encoder stores them."""

from __future__ import annotations

import av
import pytest
import video_files

from streamingvlm.media import packets
from streamingvlm.media.sources.decoding import Bits, Numbers

PLAIN = {"bf": "0", "g": "12", "sc_threshold": "0"}
B_FRAMES = {"bf": "3", "g": "12", "sc_threshold": "0", "refs": "4", "x264-params": "b-pyramid=strict"}


@pytest.mark.parametrize(("name", "options"), [
    ("a.mp4", PLAIN), ("a.ts", PLAIN), ("b.mp4", B_FRAMES), ("b.ts", B_FRAMES), ("c.ts", PLAIN | {"profile": "baseline"}),
    ("d.ts", PLAIN | {"slices": "3"})])
def test_a_loss_is_seen_where_something_refers_to_it_and_nothing_else_is(name, options, tmp_path):
    path = video_files.make(tmp_path / name, 40, 25, size=(96, 64), codec_options=options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stored = [packet for packet in container.demux(stream) if packet.size]
        setup = bytes(stream.codec_context.extradata or b"")
    slices = [next(unit[0] for unit in packets.units(bytes(p), setup, "h264") if unit[0] & 31 in (1, 5)) for p in stored]
    assert len(stored) == 40 and not any(map(Numbers(setup).skipped, stored))
    missed = 0
    for lost in range(1, 39):
        numbers = Numbers(setup)
        skipped = [numbers.skipped(packet) for packet in stored[:lost] + stored[lost + 1 :]]
        if not slices[lost] >> 5:  # nothing refers to it
            assert not any(skipped)
        elif not stored[lost].is_keyframe and not stored[lost + 1].is_keyframe:
            assert any(skipped) and not any(skipped[:lost])
            missed += 1
    assert missed > 10


def test_bits_count_as_the_standard_has_it():
    bits = Bits(bytes([0b1_010_011_0, 0b0100_0010, 0b1_0000000]))
    assert [bits.number() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert bits.take(8) == 0 and bits.number() >= 0  # behind the end
