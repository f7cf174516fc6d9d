"""Token for token what the released code does: recorded runs replayed by `bench/conformance.py`, and the tool's own verdicts."""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import conformance
import golden

from streamingvlm.models.qwen25.pixels import to_patches
from streamingvlm.streaming.batching import run_batched

DATA = Path(__file__).resolve().parents[1] / "data" / "golden"
LONG = [DATA / f"{name}.json" for name in "ABE"]
SHORT = sorted({path for path in DATA.glob("*.json") if path.stem != "meta"}.difference(LONG))


@pytest.mark.parametrize("path", SHORT, ids=lambda path: path.stem)
def test_a_recorded_run_is_reproduced(path):
    """Retained, new and generated ids and positions are the same in every chunk, hidden states, keys and values within 1e-4."""
    run = conformance.read(path)
    the_same(run, [conformance.compare(run, ours, i) for i, ours in enumerate(conformance.replay(run, golden.golden_model()))])


def test_the_long_runs_are_reproduced_side_by_side():
    """A token of theirs is a product with 151,936 rows: of three streams at once, it costs about as much as of one."""
    runs = [conformance.read(path) for path in LONG]
    ours, rows = [conformance.begin(run, golden.golden_model()) for run in runs], [[] for _ in runs]
    for i in range(max(len(run.chunks) for run in runs)):
        going = [k for k, run in enumerate(runs) if i < len(run.chunks)]
        run_batched(golden.golden_model(), [ours[k].round_of(runs[k].name, golden.chunk(i, runs[k].seconds)) for k in going])
        for k in going:
            rows[k].append(conformance.compare(runs[k], ours[k], i))
    for run, of_it in zip(runs, rows, strict=True):
        the_same(run, of_it)


def the_same(run: conformance.Run, rows: list[conformance.Agreement]) -> None:
    assert all(row.whole for row in rows), conformance.report(run, rows)
    assert len(rows) == len(run.chunks) >= 14 and all(row.positions and row.hidden is not None for row in rows)
    assert any(row.kv is not None for row in rows)


def test_the_model_and_its_frames_are_those_of_the_recordings():
    meta = json.loads((DATA / "meta.json").read_text())
    assert golden.wrong_weights(golden.golden_model(), meta["params"]) == []
    for row in meta["frames"]:
        assert zlib.crc32(golden.frame(row["n"]).tobytes()) == row["crc32_HWC_uint8"]
    recorded = np.load(DATA / "A.npz")
    patches, grid = to_patches(golden.chunk(0, 1).frames)
    assert grid == (1, 10, 8)
    torch.testing.assert_close(patches, torch.from_numpy(recorded["pixel_values_0"]), rtol=0, atol=1e-5)
    seen = golden.golden_model().encode([(patches, grid)])[0]
    torch.testing.assert_close(seen, torch.from_numpy(recorded["video_embeds_0"]), rtol=0, atol=1e-4)


def shortened(folder: Path, chunks: int, name: str = "A") -> tuple[Path, dict]:
    """A copy of the first chunks of a run -> its path and what it holds."""
    shutil.copy(DATA / f"{name}.npz", folder)
    record = json.loads((DATA / f"{name}.json").read_text())
    record["chunks"] = record["chunks"][:chunks]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record))
    return path, record


def test_the_tool_says_yes_only_if_everything_agrees(tmp_path, capsys):
    path, record = shortened(tmp_path, 2)
    assert conformance.main([str(path)]) == 0
    assert "2 of 2 chunks agree" in capsys.readouterr().out
    changes = {"a retained id": lambda c: c["input_ids"].__setitem__(3, 7), "a new id": lambda c: c["input_ids"].__setitem__(-1, 7),
               "a generated id": lambda c: c["generated"].__setitem__(2, 7), "a count": lambda c: c.update(prefill_fed=42),
               "a position": lambda c: c.update(pos_max_last=128.0)}
    for what, change in changes.items():
        bad = json.loads(json.dumps(record))
        change(bad["chunks"][1])
        path.write_text(json.dumps(bad))
        assert conformance.main([str(path)]) == 1, what
        assert "1 of 2 chunks agree" in capsys.readouterr().out
    path.write_text(json.dumps(record))
    for key, place in (("final_hidden", (25, 3)), ("pos_first_1", (1, 60)), ("v_0", (0, 0, 5, 5))):
        arrays = dict(np.load(DATA / "A.npz"))
        arrays[key][place] += 0.01 if key != "pos_first_1" else 1
        np.savez(path.with_suffix(".npz"), **arrays)
        assert conformance.main([str(path)]) == 1, key
    path.with_suffix(".npz").unlink()
    assert conformance.main([str(path)]) == 0, "a run without arrays is compared by what it has"


def test_what_the_ledger_reads_is_left_only_if_every_run_could_be_read(tmp_path):
    path, _ = shortened(tmp_path, 2)
    save = tmp_path / "conformance.json"
    assert conformance.main([str(path), "--save", str(save)]) == 0
    found = json.loads(save.read_text())
    assert found["runs"] == found["runs_agreeing"] == 1 and found["chunks"] == found["chunks_agreeing"] == 2
    assert found["tokens"] > 2 and 0 < found["hidden_difference"] < conformance.TOLERANCE and found["hardware"]["text"]
    save.unlink()
    assert conformance.main([str(path), str(tmp_path / "none.json"), "--save", str(save)]) == 2 and not save.exists()


def test_what_is_no_recorded_run_is_named_in_one_sentence(tmp_path, capsys):
    path, record = shortened(tmp_path, 2)
    no_chunks = {key: value for key, value in record.items() if key != "chunks"}
    odd = record | {"params": record["params"] | {"text_sink": None}}
    texts = ["{", "[]", json.dumps(no_chunks), json.dumps(record | {"chunks": []}), json.dumps(odd),
             json.dumps(record | {"params": record["params"] | {"pos_mode": "sideways"}}), json.dumps(record | {"params": {"window_size": 0}})]
    for text in texts:
        path.write_text(text)
        assert conformance.main([str(path)]) == 2, text
        said = capsys.readouterr()
        assert said.err.count("\n") == 1 and "A.json" in said.err and said.out == "", text
    path.write_text(json.dumps(record))
    path.with_suffix(".npz").write_bytes(b"PK not a zip")
    assert conformance.main([str(path), str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
