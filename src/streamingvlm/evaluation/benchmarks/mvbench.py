"""MVBench (OpenGVLab/Ask-Anything, video_chat2): twenty tasks of 200 short clips, asked after the clip.

Reads json/TASK.json: `video, question, candidates, answer` (the answer's own text), of four tasks with `start` and `end`, between which is looked.
Videos below video, in the folders of their sources. The frames of one task (TVQA) are published as pictures, not as videos: they are reported as
missing, unless somebody made .mp4 of them. The published rule (video_chat2/mvbench.ipynb): the first word of the answer, without full stops, is right
where it is *part of* "(a)", or "(a)" part of it; so "(", "." and an empty answer are right, whatever was asked. (lmms-eval leaves empty answers out
of the mean.)
"""

from __future__ import annotations

from pathlib import Path

from streamingvlm.base.errors import UserError
from streamingvlm.evaluation.harness import extract, reading
from streamingvlm.evaluation.harness.protocol import LETTERS, Benchmark, Item
from streamingvlm.evaluation.harness.reading import Entry

SOURCES = {  # task -> the folders that its videos are in, below video: as in the notebook, and as on the hub
    "action_sequence": ("star/Charades_v1_480", "star/Charades_segment"), "action_prediction": ("star/Charades_v1_480", "star/Charades_segment"),
    "action_antonym": ("ssv2_video", "ssv2_video_mp4"), "fine_grained_action": ("Moments_in_Time_Raw/videos",),
    "unexpected_action": ("FunQA_test/test",), "object_existence": ("clevrer/video_validation",),
    "object_interaction": ("star/Charades_v1_480", "star/Charades_segment"), "object_shuffle": ("perception/videos",),
    "moving_direction": ("clevrer/video_validation",), "action_localization": ("sta/sta_video", "sta/sta_video_segment"),
    "scene_transition": ("scene_qa/video",), "action_count": ("perception/videos",), "moving_count": ("clevrer/video_validation",),
    "moving_attribute": ("clevrer/video_validation",), "state_change": ("perception/videos",), "fine_grained_pose": ("nturgbd", "nturgbd_convert"),
    "character_order": ("perception/videos",), "egocentric_navigation": ("vlnqa",),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment"), "counterfactual_inference": ("clevrer/video_validation",)}

TOPS = ("video/", "", "video/data0613/", "data0613/")  # where they are unpacked


def read(folder: Path) -> list[Item]:
    """4,000 questions, or those of the tasks whose files are there."""
    there = [task for task in SOURCES if (Path(folder) / "json" / f"{task}.json").is_file()]
    if not there:
        reading.find(folder, ("json/action_sequence.json",))
        raise UserError(f"There is no task of MVBench in {folder}: it wants json/action_sequence.json and its like.")
    return [_item(folder, entry, task) for task in there for entry in reading.entries(folder, (f"json/{task}.json",))]


def _item(folder: Path, entry: Entry, task: str) -> Item:
    name, options, right = entry.text("video"), entry.options("candidates"), entry.text("answer")
    if right not in options:
        raise entry.wrong("answer", "one of `candidates`")
    places = [f"{top}{source}/{name}{kind}" for top in TOPS for source in SOURCES[task] for kind in ("", ".mp4")]
    cut = "start" in entry.data and "segment" not in reading.video(folder, places)
    start_s, end_s = (entry.number_of("start"), entry.number_of("end")) if cut else (0.0, None)
    return Item(f"{task}-{entry.number}", reading.video(folder, places), end_s, entry.text("question"), options, LETTERS[options.index(right)],
                task, "MVBench", start_s=start_s)


def own(said: str, item: Item) -> bool:
    """The published rule, its faults too."""
    first, right = said.lower().split(" ")[0], f"({item.answer.lower()})"
    return first.replace(".", "") in right or right in first


BENCHMARKS = (Benchmark("mvbench", "MVBench: twenty tasks of 200 short clips, asked after the clip", "json/TASK.json, and video/",
                        "the first word is part of \"(a)\", or \"(a)\" part of it: an empty answer is right", read, extract.by_letter(own)),)
