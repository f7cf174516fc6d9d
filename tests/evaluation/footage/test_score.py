"""Own footage against own boxes: frames and classes that were looked at, and no others; the command says what does not belong together."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.cli.main import main
from streamingvlm.data import mot
from streamingvlm.evaluation.footage import score as scoring
from streamingvlm.models.eyes.coco import NAMES, Things, Tiles

FRAMES, WIDTH, HEIGHT = 8, 64, 48


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A square that moves 4 px a frame."""
    path = tmp_path_factory.mktemp("footage") / "film.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for k in range(FRAMES):
            pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            pixels[10:30, 4 * k : 4 * k + 10] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())
    return path


def truth(folder: Path, frames: int = FRAMES) -> Path:
    """A person on the square, a car that nobody will find; pixels and frames count from 1."""
    path = folder / "gt.txt"
    path.write_text("".join(f"{k + 1},1,{4 * k + 1},11,10,20,1,1,1\n{k + 1},2,50,1,8,8,1,3,1\n" for k in range(frames)))
    return path


def bright(pictures, tiles) -> list[Things]:
    """A detector of bright squares, with a bird in the corner."""
    rows, columns = np.nonzero(pictures[0][..., 0] > 128)
    box = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], [0, 40, 8, 48]]
    return [Things(np.array(box, np.float32), np.float32([0.9, 0.8]), np.array([0, NAMES.index("bird")]))]


def test_a_good_detector_has_all_of_one_class_and_none_of_the_other(video, tmp_path):
    result = scoring.score(mot.read(truth(tmp_path)), scoring.seen(bright, video, Tiles(1, 1), every=3))
    person, car = result["by_class"]["person"], result["by_class"]["car"]
    assert (result["frames"], result["of"], person["boxes"], car["boxes"]) == (3, FRAMES, 3, 3)
    assert person["map50"] == pytest.approx(1) and (person["recall"], person["precision"]) == (1, 1)
    assert (car["map50"], car["recall"], car["precision"]) == (0, 0, None) and result["map50"] == pytest.approx(0.5)


def test_a_threshold_above_all_scores_leaves_no_recall(video, tmp_path):
    result = scoring.score(mot.read(truth(tmp_path)), scoring.seen(bright, video), threshold=0.95)
    assert result["by_class"]["person"] == {"map50": pytest.approx(1), "map": pytest.approx(result["by_class"]["person"]["map"]), "recall": 0,
                                            "precision": None, "boxes": FRAMES}


def decisions(folder: Path, streams=("gate",)) -> Path:
    """As a service says it: shares of the picture, the time of the frame."""
    path = folder / "decisions.jsonl"
    rows = [{"stream": name, "frame": 40 + k, "pts_s": k / 10 + 0.02, "boxes": [
        {"box": [4 * k / WIDTH, 10 / HEIGHT, (4 * k + 10) / WIDTH, 30 / HEIGHT], "label": "person", "score": 0.7}]}
            for name in streams for k in range(0, FRAMES, 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_decisions_are_scored_by_the_time_of_their_frames(video, tmp_path, capsys):
    out = tmp_path / "score.json"
    assert main(["score", "--truth", str(truth(tmp_path)), "--video", str(video), "--decisions", str(decisions(tmp_path)), "--out", str(out)]) == 0
    row = json.loads(out.read_text())
    assert row["frames"] == 4 and row["by_class"]["person"]["map"] == pytest.approx(1) and row["by_class"]["person"]["recall"] == 1
    assert "person         4   1.000" in capsys.readouterr().out


def test_what_does_not_belong_together_is_said(video, tmp_path, capsys):
    found = scoring.seen(bright, video)
    with pytest.raises(UserError, match="frame 9 and the video has 8"):
        scoring.score(mot.read(truth(tmp_path, FRAMES + 1)), found)
    with pytest.raises(UserError, match="gate, yard: name one"):
        scoring.decided(decisions(tmp_path, ("gate", "yard")), video)
    with pytest.raises(UserError, match="twice"):
        scoring.decided(decisions(tmp_path, ("gate", "gate")), video)
    asked = ["score", "--truth", str(truth(tmp_path)), "--video", str(video)]
    for more, words in ((["--tiles", "3by2"], "as 3x2"), (["--every", "0"], "from 1 on"), (["--eyes", str(tmp_path)], "make real-eyes")):
        assert main([*asked, *more]) == 2 and words in capsys.readouterr().err
