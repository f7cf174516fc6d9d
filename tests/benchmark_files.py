"""Every public benchmark in miniature: annotation files of our own making with the published fields, and videos of a few seconds whose frames show
their numbers. What is asked is nonsense."""

from __future__ import annotations

import json
from pathlib import Path

from video_files import make

CHOICE = {"question": "What is there?", "options": ["red", "green", "blue", "white"]}
WORDS = [[1.0, 2.0, "one two"], [2.0, 4.0, "three four"]]


def ovo() -> list[dict]:
    common = {"video": "Ego/a.mp4", "answer": "green"} | CHOICE
    return [
        {"id": 0, "task": "EPM", "realtime": 3, "gt": 1} | common,
        {"id": 1, "task": "OCR", "realtime": 1.4, "gt": 1} | common,
        {"id": 2, "task": "HLD", "realtime": 5, "gt": 0} | common | {"video": "Ego/b.mp4"},
        {"id": 3, "task": "REC", "video": "Ego/b.mp4", "activity": "jumping", "start_times": [1], "end_times": [2],
         "test_info": [{"realtime": 2, "count": 0}, {"realtime": 4.0, "count": 1}]},
        {"id": 4, "task": "SSR", "video": "Ego/b.mp4", "tutorial": "tea", "all_steps": ["boil"], "start_time": [1], "end_time": [2],
         "test_info": [{"realtime": 1, "step": "boil", "type": 1}]},
        {"id": 5, "task": "CRR", "video": "Ego/c.mp4", "question": "Who wins?", "answer": "red", "ask_time": 1, "clue_time": 3,
         "test_info": [{"realtime": 1, "type": 0}, {"realtime": 4, "type": 1}]}]


def streamingbench(real: bool = True) -> list[dict]:
    asked = {"task_type": "Counting", "time_stamp": "00:00:03", "answer": "B", "required_ability": "memory", "question": "How many?",
             "options": [f"{letter}. {n}" for letter, n in zip("ABCD", "1234", strict=True)]}
    waited = {"task_type": "Proactive Output", "question": 'When it is 3, output "3".', "time_stamp": "00:00:00", "required_ability": "memory",
              "ground_truth_time_stamp": "00:00:02", "ground_truth_output": "3"}
    return [{"time": "[0:00:00 - 0:00:10]", "questions": [asked if real else waited], "video_categories": "x", "video_path": "./videos/sample_1.mp4"}]


def longvideobench() -> list[dict]:
    return [{"id": "x_0", "video_id": "x", "video_path": "x.mp4", "question": "What?", "candidates": ["red", "green"], "correct_choice": 1,
             "question_category": "S2E", "duration_group": 15, "duration": 5.0, "subtitle_path": "x.json", "starting_timestamp_for_subtitles": 0}]


def videomme() -> list[dict]:
    return [{"videoID": "x", "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Law", "url": "", "question_id": "001-1",
             "task_type": "OCR Problems", "question": "What?", "options": ["A. red", "B. green", "C. blue", "D. white"], "answer": "C"}]


def mvbench() -> list[dict]:
    return [{"video": "x.mp4", "question": "What?", "candidates": ["red", "green"], "answer": "green", "start": 1.0, "end": 3.0}]


def livesports_cc() -> list[dict]:
    return [{"video_id": "x", "url": "", "event_id": 7, "begin": 1.0, "end": 4.0, "event_type": "goal", "video": "x.mp4", "class": "football",
             "event_title": "a match", "event_asr": WORDS, "event_asr_text": "", "preasr": [], "preasr_text": "before"}]


def livesports_qa() -> list[dict]:
    return [{"video_id": "x", "question_id": 1, "q_type": "Who", "OCR": 0, "answer": "A", "video": "x.mp4", "video_start": 0.0, "video_end": 3.0}
            | {"question": "Who?", "options": ["A. red", "B. green", "C. blue", "D. white"]}]


# name -> (annotation file, its entries, the videos it asks about)
ALL = {
    "ovo": ("ovo_bench_new.json", ovo, ["src_videos/Ego/a.mp4", "src_videos/Ego/b.mp4", "src_videos/Ego/c.mp4"]),
    "streamingbench": ("questions_real.json", streamingbench, ["videos/sample_1.mp4"]),
    "streamingbench-omni": ("questions_omni.json", streamingbench, ["videos/sample_1.mp4"]),
    "streamingbench-sqa": ("questions_sqa.json", lambda: [streamingbench() * 2], ["videos/sample_1.mp4"]),
    "streamingbench-proactive": ("questions_proactive.json", lambda: streamingbench(False), ["videos/sample_1.mp4"]),
    "longvideobench": ("lvb_val.json", longvideobench, ["videos/x.mp4"]),
    "videomme": ("videomme.json", videomme, ["data/x.mp4"]),
    "mvbench": ("json/action_sequence.json", mvbench, ["video/star/Charades_v1_480/x.mp4"]),
    "livesports-cc": ("LiveSports-3K-CC.json", livesports_cc, ["videos/x.mp4"]),
    "livesports-qa": ("LiveSports-3K-QA.json", livesports_qa, ["videos/x.mp4"]),
    "infstreams": ("eval_all_metadata.jsonl", lambda: [{"video": "x.mp4", "title": "x", "content": [[1001.0, 1002.0, "one two"]]}], ["x.mp4"]),
}


def write(folder: Path, name: str, rows: list | None = None) -> Path:
    """The annotation file of a benchmark, of other entries if they are given."""
    file, entries, _ = ALL[name]
    path, rows = folder / file, entries() if rows is None else rows
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) if path.suffix == ".jsonl" else json.dumps(rows))
    return path


def whole(folder: Path, name: str, seconds: int = 6) -> Path:
    """The annotation file and its videos -> the folder."""
    write(folder, name)
    for video in ALL[name][2]:
        (folder / video).parent.mkdir(parents=True, exist_ok=True)
        make(folder / video, frames=seconds * 4, fps=4)
    return folder
