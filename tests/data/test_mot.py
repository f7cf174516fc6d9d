"""MOTChallenge's format: what is written comes back; every column count of the benchmark is read; a bad line is named."""

from __future__ import annotations

import numpy as np
import pytest

from streamingvlm.base.errors import UserError
from streamingvlm.data import mot


def test_what_is_written_comes_back(tmp_path):
    tracks = mot.Tracks(np.array([0, 0, 4]), np.array([3, 5, 3]), np.array([[0.0, 0, 8, 20], [10, 4, 36, 16], [1.5, 2, 9, 22]]),
                        np.array(["person", "car", "bag"]), np.ones(3), np.array([1.0, 0.5, 0.25]))
    mot.write(tmp_path / "gt.txt", tracks)
    assert (tmp_path / "gt.txt").read_text().splitlines()[1] == "1,5,11,5,26,12,1,3,0.5"
    back = mot.read(tmp_path / "gt.txt")
    for name in ("frame", "track", "box", "label", "visible", "confidence"):
        assert (getattr(back, name) == getattr(tracks, name)).all(), name


@pytest.mark.parametrize("line", [
    "1,9,499,158,31,75", "1,9,499,158,31,75,1", "1,9,499,158,31,75,1,1", "1,9,499,158,31,75,1,1,0.5",
    " 1, 9, 499,158,31,75,1,-1,-1,-1,", "1,9,499,158,31,75,1,-4.1554,-7.3591,0"])
def test_six_to_ten_columns_are_people(tmp_path, line):
    (tmp_path / "gt.txt").write_text(line + "\n\n")
    got = mot.read(tmp_path / "gt.txt")
    assert got.frame.tolist() == [0] and got.box.tolist() == [[498, 157, 529, 232]] and got.label.tolist() == ["person"]
    assert got.visible[0] == (0.5 if line.endswith("0.5") else 1.0)


def test_what_is_not_to_be_considered_is_left_out_and_frames_are_the_contracts(tmp_path):
    (tmp_path / "gt.txt").write_text("3,1,1,1,5.4,5,1,1,1\n1,2,1,1,5,5,0,1,1\n1,3,1,1,5,5,1,8,1\n1,4,11,1,5,5,1,3,1\n")
    got = mot.read(tmp_path / "gt.txt")
    assert got.label.tolist() == ["car", "person"] and len(mot.read(tmp_path / "gt.txt", ground_truth=False).frame) == 3
    assert got.frames(fps=10, count=4) == [
        {"t_s": 0.0, "boxes": [[10, 0, 15, 5]], "action": "", "anomaly": False}, {"t_s": 0.1, "boxes": [], "action": "", "anomaly": False},
        {"t_s": 0.2, "boxes": [[0, 0, 5, 5]], "action": "", "anomaly": False}, {"t_s": 0.3, "boxes": [], "action": "", "anomaly": False}]
    assert len(got.frames(fps=10)) == 3 and not mot.Tracks(*(getattr(got, name)[:0] for name in got.__dataclass_fields__)).frames(10)


@pytest.mark.parametrize("line", [
    "1,2,3,4,5", "0,1,1,1,5,5", "1.5,1,1,1,5,5", "1,1,1,1,0,5", "1,1,1,1,5,x", "1,1,nan,1,5,5", "1 1 1 1 5 5", "1,1,1,1,5,5,1,1,1,1,1"])
def test_a_malformed_line_is_named(tmp_path, line):
    (tmp_path / "gt.txt").write_text(f"1,1,1,1,5,5\n{line}\n")
    with pytest.raises(UserError, match=r"gt\.txt line 2 must hold 6 to 10 numbers"):
        mot.read(tmp_path / "gt.txt")


def test_files_and_labels_that_cannot_be(tmp_path):
    with pytest.raises(UserError, match="Can't read"):
        mot.read(tmp_path / "none.txt")
    with pytest.raises(UserError, match="no number for horse"):
        mot.write(tmp_path / "gt.txt", mot.Tracks(np.zeros(1), np.zeros(1), np.ones((1, 4)), np.array(["horse"]), np.ones(1), np.ones(1)))
    assert not (tmp_path / "gt.txt").exists()
