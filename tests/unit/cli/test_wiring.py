"""What is given on the command line reaches the function that does the work, under its own name."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.mining.harvest import HarvestRules
from mmpluld.mining.options import MiningOptions

PROPOSE = {"fold": (1, 5), "fold_seed": 3, "batch_size": 2, "device": "cpu", "precision": "bf16", "max_gap": 2}
MATCH = {"least_precision": 0.7, "max_pairs": 3, "proposals": "P", "box_score": 0.4, "truth": "T", "embeddings": "E"}
RULES = {"uncertain_iou": 0.1, "conflict_share": 0.2, "conflict_iou": 0.3, "depth": 4.0, "max_pairs": 5}
RULES |= {"centre_iou": 0.6}
RULES |= {"continuity": 6, "reach": 7, "several": "nearest", "match": "position", "tracklet_experts": ("x", "y")}
RULES |= {"theta": 0.6, "delta": 0.25, "sigma": 0.7, "box_score": 0.8}
RULES |= {"single_types": ("z",), "oracle_types": ("lung",)}
EMBED = {"proposals": "P", "batch_size": 2, "launcher": "mpi", "box_score": 0.5, "device": "cpu"}
DETECT = {"min_slices": 2, "tag_thr": 0.7, "batch_size": 3, "score_thr": 0.4, "link_score_thr": 0.1, "iou_thr": 0.6}
DETECT |= {"max_gap": 1, "max_boxes": 9, "precision": "bf16", "device": "cpu", "tags": "T"}
TRAIN = {"seed": 7, "auto_scale_lr": True, "amp": True, "resume": "auto", "launcher": "mpi", "twin": True}
DEEPLESION = {"csv_name": "t.csv", "tags": "t.json", "tag_ontology": "o.csv", "lesion_pairs": ["a", "b"]}
VOLUMES = {"fractions": [70.0, 10.0, 20.0], "seed": 4, "pad_mm": 1.5, "overrides": "o.csv", "units": "hu"}
BOXES = {"one_based": True, "world": "ras", "max_gap_mm": 2.5, "label_scope": "lung-nodules", "inclusive": True}


def given(options: dict[str, Any], **flags: str) -> list[str]:
    """The options of a command line, after their names or the flags given."""
    words = []
    for name, value in options.items():
        words.append("--" + flags.get(name, name).replace("_", "-"))
        if isinstance(value, (tuple, list)) and name != "fold":
            words += map(str, value)
        elif value is not True:
            words.append("/".join(map(str, value)) if name == "fold" else str(value))
    return words


@pytest.mark.parametrize(
    ("worker", "command", "expected"),
    [
        ("inference.propose.propose", ["propose", "C", "W", "--out", "o", *given(PROPOSE)], PROPOSE),
        (
            "mining.harvest.harvest_files",
            ["harvest", "A", "P", "--out", "o.json", "--theta", "0.6", "--theta-fp", "0.2", "--min-score", "0.1"],
            {"rules": HarvestRules(0.6, 0.2, 0.1)},
        ),
        (
            "mining.match_table.match_files",
            ["match", "A", "--out", "o.json", *given(MATCH)],
            {**MATCH, "out": "o.json"},
        ),
        (
            "mining.mine.mine_files",
            ["mine", "A", "P", "--out", "o.json", "--truth", "T", "--bootstrap", "9", *given(RULES)],
            {"options": MiningOptions(**RULES), "truth_file": "T", "resamples": 9},
        ),
        ("inference.embed.embed", given({"annotations": "A", "data_root": "R", "out": "o", **EMBED}), EMBED),
        ("inference.detector.Detector", ["detect", "scan.nii", "--out", "o", *given(DETECT)], DETECT),
        ("engine.run.train", ["train", "C", "--work-dir", "o", *given({**TRAIN, "resume": True})], TRAIN),
        ("engine.model_files.download_model", ["download", "N", "--dest", "o", "--overwrite"], {"overwrite": True}),
        (
            "datasets.converters.convert_deeplesion",
            ["convert", "deeplesion", ".", *given(DEEPLESION, csv_name="csv"), "--keep-noisy", "--no-images"],
            {**DEEPLESION, "drop_noisy": False, "require_images": False},
        ),
        (
            "datasets.converters.convert_luna16",
            ["convert", "luna16", ".", *given(VOLUMES, fractions="split"), "--with-excluded", "--test-subset", "3"],
            {**VOLUMES, "with_excluded": True, "test_subset": 3},
        ),
        (
            "datasets.converters.convert_boxes",
            ["convert", "boxes", ".", "--boxes", "b.csv", *given({**VOLUMES, **BOXES}, fractions="split")],
            {**VOLUMES, **BOXES, "boxes": "b.csv"},
        ),
    ],
)
def test_options_reach_the_worker(worker, command, expected, tmp_path, monkeypatch, capsys):
    module, _, name = f"mmpluld.{worker}".rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    seen: dict[str, Any] = {}

    def stand_in(*arguments: object, **keywords: object) -> None:
        for key, value in signature.bind(*arguments, **keywords).arguments.items():
            rest = signature.parameters[key].kind is inspect.Parameter.VAR_KEYWORD
            seen.update(value if rest else {key: value})
        raise InputError("seen")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"{module}.{name}", stand_in)
    if name == "Detector":  # made once there is a scan
        monkeypatch.setattr("mmpluld.inference.many_scans.detect_inputs", lambda detector, request: detector())
    if name == "embed":
        command = ["embed", "C", "W", *command]
    assert main(command) == 2
    assert capsys.readouterr().err == "mmpluld: error: seen\n"
    assert {key: seen.get(key) for key in expected} == expected
