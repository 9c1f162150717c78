"""Files in, files out: all strategies on simulated series, in any order, once and again."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from mmpluld.cli.main import main
from mmpluld.datasets import CTLesionDataset
from mmpluld.datasets.folds import volumes_of_fold
from mmpluld.datasets.samplers import LesionSampler
from mmpluld.errors import InputError
from mmpluld.inputs import sha256_of
from mmpluld.io.proposals import ProposalStore
from mmpluld.io.shards import shard_path
from mmpluld.mining.mine import mine_files
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.strategy_table import STRATEGIES
from mmpluld.structures import AnnotationSet, LesionRecord, boxes_by_slice, origins_by_slice

ALL = ["cross-slice", "intra-patient", "cross-dataset", "unlabeled"]
POSITION = MiningOptions(match="position", delta=0.3)


@pytest.fixture
def case(volume, annotated, lesion, store, saved):
    """Three patients of two series each with the same four lesions, one of them annotated in the first series.

    Slices of the first are 5 mm apart, where the tracklets cover 12 to 14, those of the second 2 mm: 14 to 18.
    """

    def make(seed=0):
        rng = np.random.default_rng(seed)
        volumes, lesions, found = [], [], []
        for patient in range(3):
            corners = np.array([[10, 10], [60, 10], [10, 50], [150, 50]]) + rng.integers(0, 9, (4, 2))
            for study in (1, 2):
                series = volume(f"{patient}_{study:02d}_01", interval=[2.0, 5.0][study % 2], num_slices=12)
                rows = []
                for number, (x, y) in enumerate(corners.tolist()):
                    box = (float(x), float(y), x + 24.0, y + 24.0)
                    rows += [(place, box, 0.9 - place / 100, "deeplesion", number) for place in range(3, 8)]
                    rows += [(place, box, 0.85 - place / 100, "lits", -1) for place in range(3, 8)]
                volumes.append(series)
                found.append((series, rows))
            x, y = corners[0].tolist()
            lesions.append(lesion(patient, f"{patient}_01_01", 13, (float(x), float(y) + 1, x + 24.0, y + 25.0)))
        known = annotated(volumes, lesions)
        path = saved(known)
        return path, store(found, sha256_of(path)).folder

    return make


def test_all_strategies(case):
    path, folder = case()
    result = mine_files(path, [folder], strategies=ALL, options=POSITION)
    known, mined = AnnotationSet.load(path), result.annotations
    assert [row["strategy"] for row in result.counts] == ["none", *ALL]
    first = result.counts[0]
    assert (first["lesions_3d"], first["boxes_2d"], first["uncertain_2d"], first["slices"]) == (3, 3, 0, 3)
    lesions = [row["lesions_3d"] for row in result.counts]
    assert lesions == [3, 3, 6, 6, 6]  # one lesion of each patient in its other series
    assert [row["slices"] for row in result.counts][-1] == 6 * 12
    for old, new in zip(known.lesions, mined.lesions, strict=False):
        assert boxes_by_slice(new)[old.key_slice] == boxes_by_slice(old)[old.key_slice]
        assert origins_by_slice(new)[old.key_slice] == "annotated"
        assert set(origins_by_slice(new).values()) == {"annotated", "propagated"}
    entry = mined.dataset["mined"][0]
    assert entry["strategies"] == ALL
    assert entry["annotations_sha256"] == sha256_of(path)
    assert entry["options"]["delta"] == 0.3
    assert known.dataset == AnnotationSet.load(path).dataset  # the given file is as it was


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_adds_what_the_table_says(name, case):
    path, folder = case()
    result = mine_files(path, [folder], strategies=[name], options=POSITION)
    old = {(item.id, number) for item in AnnotationSet.load(path).lesions for number in boxes_by_slice(item)}
    added = {
        (origin, item.ignore)
        for item in result.annotations.lesions
        for number, origin in origins_by_slice(item).items()
        if (item.id, number) not in old
    }
    assert added == {(STRATEGIES[name].origin, STRATEGIES[name].uncertain)}
    assert (result.counts[-1]["slices"] == 72) == STRATEGIES[name].every_slice


def test_folds_are_mined_together_or_not_at_all(case, tmp_path):
    path, folder = case()
    whole, volumes = ProposalStore(folder), AnnotationSet.load(path).volumes
    stores = []
    for fold in ((0, 2, 0), (1, 2, 0)):
        stores.append(ProposalStore.create(tmp_path / f"fold{fold[0]}", replace(whole.header, fold=fold)))
        for volume in volumes_of_fold(volumes, fold):
            stores[-1].save(whole.load(volume.id))
    first, second = (store.folder for store in stores)
    wanted = mine_files(path, [folder], strategies=ALL, options=POSITION).annotations.lesions
    assert mine_files(path, [first, second], strategies=ALL, options=POSITION).annotations.lesions == wanted
    with pytest.raises(InputError, match=r"fold0: of folds that leave out \d volumes of .*; give the proposals of all"):
        mine_files(path, [first], strategies=ALL, options=POSITION)
    shard_path(second, stores[1].volumes[0]).unlink()
    with pytest.raises(InputError, match=r"fold1: no proposals of 1 volume of .*; run `mmpluld propose` again"):
        mine_files(path, [first, second], strategies=ALL, options=POSITION)


def test_an_uncertain_box_that_becomes_a_lesion_goes_whatever_finds_it(case, tmp_path):
    path, folder = case()
    first = mine_files(path, [folder], strategies=["cross-slice"], options=POSITION).annotations
    lesion = first.lesions[0]
    number = next(n for n, origin in origins_by_slice(lesion).items() if origin != "annotated")
    x1, y1, x2, y2 = boxes_by_slice(lesion)[number]
    doubtful = LesionRecord(
        max(item.id for item in first.lesions) + 1, lesion.volume, (x1, y1, number, x2, y2, number + 1.0),
        ignore=True, origin="mined", score=0.6, attributes={"expert": "lits"},
    )  # fmt: skip
    before = AnnotationSet.load(path)
    mined = [{"annotations_sha256": sha256_of(path), "strategies": [], "oracles": []}]
    round_two = AnnotationSet(before.dataset | {"mined": mined}, before.volumes, [*before.lesions, doubtful])
    round_two.save(tmp_path / "two.json")
    found = mine_files(tmp_path / "two.json", [folder], strategies=["cross-slice"], options=POSITION).annotations
    assert not any(item.ignore for item in found.lesions)


def test_the_order_of_everything_has_no_influence(case, tmp_path):
    path, folder = case()
    names = [name for name in STRATEGIES if name != "distillation"]
    wanted = mine_files(path, [folder], strategies=names, options=POSITION).annotations
    known = AnnotationSet.load(path)
    shuffle = random.Random(1)
    shuffle.shuffle(known.volumes)
    shuffle.shuffle(known.lesions)
    known.save(tmp_path / "shuffled.json")
    old = ProposalStore(folder)
    header = replace(old.header, annotations_sha256=sha256_of(tmp_path / "shuffled.json"))
    new = ProposalStore.create(tmp_path / "shuffled", header)
    for name in old.volumes:
        shard = old.load(name)
        order = np.array(shuffle.sample(range(len(shard.scores)), len(shard.scores)))
        rows = {key: getattr(shard, key)[order] for key in ("boxes", "scores", "expert", "run", "grid", "slice")}
        numbers = np.where(shard.tracklet < 0, -1, 3 - shard.tracklet)
        new.save(replace(shard, **rows, tracklet=numbers[order]))
    options = shuffle.sample(names, len(names))
    found = mine_files(tmp_path / "shuffled.json", [new.folder], strategies=options, options=POSITION).annotations
    assert sorted(found.lesions, key=lambda item: item.id) == sorted(wanted.lesions, key=lambda item: item.id)
    again = mine_files(path, [folder], strategies=names, options=POSITION).annotations
    assert again.lesions == wanted.lesions


def test_a_second_round_keeps_what_is_mined_and_doubles_nothing(case, tmp_path, store):
    path, folder = case()
    once = mine_files(path, [folder], strategies=ALL, options=POSITION)
    once.annotations.save(tmp_path / "once.json")
    again = mine_files(tmp_path / "once.json", [folder], strategies=ALL, options=POSITION)
    assert again.annotations.lesions == once.annotations.lesions
    assert [row | {"strategy": ""} for row in again.counts] == [once.counts[-1] | {"strategy": ""}] * 5
    assert len(again.annotations.dataset["mined"]) == 2
    # New proposals on the mined file: tracklets are longer, and in the second series a fifth one appears.
    volumes = AnnotationSet.load(path).volumes
    rows = {series.id: [] for series in volumes}
    for series in volumes:
        shard = ProposalStore(folder).load(series.id)
        for number in range(4):
            x1, y1, x2, y2 = shard.boxes[shard.tracklet == number][0].tolist()
            rows[series.id] += [(place, (x1, y1, x2, y2), 0.9, "deeplesion", number) for place in range(2, 10)]
        if series.study == "02":  # between the first two, near the annotation of the other series
            rows[series.id] += [(place, (43, 20, 57, 34), 0.95, "deeplesion", 4) for place in range(2, 10)]
    fresh = store([(series, rows[series.id]) for series in volumes], sha256_of(tmp_path / "once.json"), "fresh")
    twice = mine_files(tmp_path / "once.json", [fresh.folder], strategies=ALL, options=POSITION)
    assert twice.counts[-1]["lesions_3d"] == once.counts[-1]["lesions_3d"] + 3
    assert twice.counts[-1]["boxes_2d"] > once.counts[-1]["boxes_2d"]
    before = {item.id: item for item in once.annotations.lesions}
    for item in twice.annotations.lesions:
        if item.id in before:
            kept = boxes_by_slice(before[item.id])
            assert kept.items() <= boxes_by_slice(item).items()


def test_views_of_some_patients_alone_are_refused(case, tmp_path):
    """Scores are means over the views, so a patient with fewer would be the surer one."""
    path, folder = case()
    old = ProposalStore(folder)
    view = ProposalStore.create(tmp_path / "view", replace(old.header, fold=(0, 3, 0)))
    for volume in volumes_of_fold(AnnotationSet.load(path).volumes, (0, 3, 0)):
        view.save(old.load(volume.id))
    with pytest.raises(InputError, match=r"4 volumes of .*train\.json .* have fewer views than the others"):
        mine_files(path, [folder, view.folder], strategies=["distillation"])
    with pytest.raises(InputError, match=r"proposals: is given twice"):
        mine_files(path, [folder, folder], strategies=["distillation"])


def test_what_is_distilled_is_not_distilled_again(case, tmp_path):
    path, folder = case()
    first = mine_files(path, [folder], strategies=["distillation"]).annotations
    assert any(item.origin == "distilled" for item in first.lesions)
    first.save(tmp_path / "first.json")
    with pytest.raises(InputError, match=r"first\.json: is distilled already"):
        mine_files(tmp_path / "first.json", [folder], strategies=["distillation"])


def test_what_the_truth_adds_stays_and_new_boxes_have_ids_of_their_own(
    volume, annotated, lesion, saved, store, tmp_path
):
    series = volume("1_01_01")
    known = annotated([series], [lesion(0, series.id, 13, (10, 10, 34, 34))])
    lesions = [replace(known.lesions[0], attributes={"lesion": 1})]
    lesions.append(lesion(1, series.id, 13, (30, 30, 54, 54), attributes={"lesion": 2}))  # touches the first
    lesions.append(lesion(2, series.id, 13, (70, 30, 94, 54), attributes={"lesion": 3}))
    truth = tmp_path / "truth.json"
    AnnotationSet(known.dataset, known.volumes, lesions).save(truth)
    path = saved(known)
    rows = [(2, (70, 30, 94, 54), 0.9, "lits", -1), (2, (33, 10, 60, 34), 0.9, "lits", -1)]
    folder = store([(series, rows)], sha256_of(path)).folder
    both = mine_files(path, [folder], oracles=["cross-dataset"], strategies=["unlabeled"], truth_file=truth)
    assert [row["uncertain_2d"] for row in both.counts] == [0, 2, 2]
    assert [item.box[0] for item in both.annotations.lesions] == [10, 30, 70]
    # A box that a lenient rule found is dropped by the strict one, and the new one is not taken for it.
    lenient = replace(POSITION, uncertain_iou=0.3)
    once = mine_files(path, [store([(series, rows[1:])], sha256_of(path), "some").folder], strategies=["cross-dataset"],
                      options=lenient).annotations  # fmt: skip
    once.save(tmp_path / "once.json")
    again = mine_files(tmp_path / "once.json", [folder], strategies=["cross-dataset"], truth_file=truth)
    assert ([item.box[0] for item in once.lesions], [item.box[0] for item in again.annotations.lesions]) == (
        [10, 33], [10, 70]
    )  # fmt: skip
    assert again.annotations.lesions[1].id > once.lesions[1].id
    (precision,) = [
        row for row in again.scores if (row["measure"], row["stratum"]) == ("precision_2d", "all")
    ]  # fmt: skip
    assert (precision["hits"], precision["total"]) == (1, 1)


def test_mined_slices_are_samples_and_a_lesion_is_drawn_once(case, tmp_path):
    path, folder = case()
    mined = tmp_path / "mined.json"
    mine_files(path, [folder], strategies=ALL, options=POSITION).annotations.save(mined)
    _write_slices(tmp_path, AnnotationSet.load(path))

    def samples(policy, **options):
        return CTLesionDataset(
            str(mined), sampling={"policy": policy}, pipeline=[], data_prefix={"img_path": str(tmp_path)}, **options
        )

    certain = [item for item in AnnotationSet.load(mined).lesions if not item.ignore]
    dataset = samples("lesion_slices")
    assert len(dataset) == len({(item.volume, index) for item in certain for index in boxes_by_slice(item)})
    by_lesion, _ = dataset.sample_groups()
    assert set(by_lesion) == {item.id for item in certain}
    sampler = LesionSampler(dataset, one_per_lesion=True, seed=0)
    assert len(sampler) == len(certain) == 6
    drawn = [dataset.get_data_info(index) for index in sampler]
    assert sorted({entry["lesion_id"] for item in drawn for entry in item["instances"]}) == sorted(
        {item.id for item in certain} | _ignored(drawn)
    )
    every = samples("all_slices")
    assert len(every) == 72
    sampler = LesionSampler(every, one_per_lesion=True, positive_ratio=2, seed=0)
    assert len(sampler) == 6 + 3
    kinds = [entry["ignore_flag"] for index in range(72) for entry in every.get_data_info(index)["instances"]]
    assert sum(kinds) == sum(item.ignore for item in AnnotationSet.load(mined).lesions)
    # Uncertain as truth (Table V): the same boxes are lesions, of the same samples.
    truth = samples("lesion_slices", uncertain="truth")
    shown = [entry for index in range(len(truth)) for entry in truth.get_data_info(index)["instances"]]
    assert not any(entry["ignore_flag"] for entry in shown)
    assert {entry["lesion_id"] for entry in shown} == {item.id for item in AnnotationSet.load(mined).lesions}
    assert set(truth.sample_groups()[0]) == {item.id for item in certain}


def _ignored(drawn):
    return {entry["lesion_id"] for item in drawn for entry in item["instances"] if entry["ignore_flag"]}


def _write_slices(root, annotations):
    import cv2

    for series in annotations.volumes:
        (root / series.source["path"]).mkdir()
        for index in range(series.first_slice, series.first_slice + series.num_slices):
            cv2.imwrite(str(root / series.source["path"] / f"{index:03d}.png"), np.full((100, 200), 32768, np.uint16))


def test_command(case, tmp_path, capsys):
    path, folder = case()
    out, report = tmp_path / "out.json", tmp_path / "report.json"
    command = ["mine", str(path), str(folder), "--strategies", "unlabeled", "cross-slice", "--out", str(out)]
    assert main([*command, "--report", str(report), "--sigma", "0.79"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["strategy", "3D", "truth", "2D", "truth", "2D", "uncertain", "slices"]
    assert [line.split()[:2] for line in printed[2:]] == [["+", "cross-slice"], ["+", "unlabeled"]]
    mined = AnnotationSet.load(out)
    assert min(item.score for item in mined.lesions if item.ignore) > 0.79
    assert json.loads(report.read_text())["counts"][-1]["slices"] == 72


def test_command_with_a_truth(case, tmp_path, capsys):
    path, folder = case()
    complete = AnnotationSet.load(path)
    for item in complete.lesions:
        item.attributes = {"lesion": 1}
    complete.save(tmp_path / "truth.json")
    out, report = tmp_path / "out.json", tmp_path / "report.json"
    command = ["mine", str(path), str(folder), "--strategies", "cross-dataset", "--oracle", "cross-slice", "--out"]
    assert main([*command, str(out), "--truth", str(tmp_path / "truth.json"), "--report", str(report)]) == 0
    assert "cross-dataset  precision_2d  0.000  0.000 to 0.000" in capsys.readouterr().out
    scores = json.loads(report.read_text())["scores"]
    assert {row["measure"] for row in scores} == {"precision_2d", "caps_2d"}  # nothing is left to be found
    assert AnnotationSet.load(out).dataset["mined"][0]["oracles"] == ["cross-slice"]


def test_by_the_truth_a_lesion_that_touches_a_marked_one_is_found(volume, annotated, lesion, saved, tmp_path):
    known = annotated([volume("1_01_01")], [lesion(0, "1_01_01", 13, (10, 10, 34, 34))])
    lesions = [replace(known.lesions[0], attributes={"lesion": 1})]
    lesions.append(lesion(1, "1_01_01", 13, (30, 30, 54, 54), attributes={"lesion": 2}))
    truth = tmp_path / "truth.json"
    AnnotationSet(known.dataset, known.volumes, lesions).save(truth)
    result = mine_files(saved(known), oracles=["cross-dataset"], truth_file=truth, resamples=2)
    assert [(item.ignore, item.box[:2]) for item in result.annotations.lesions] == [(False, (10, 10)), (True, (30, 30))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to mine; give --strategies"),
        (["--strategies", "intra-patient"], "intra-patient needs embeddings; make them with `mmpluld embed`"),
        (["--oracle", "cross-slice"], "the oracle of cross-slice needs the truth"),
        (["--strategies", "cross-slice", "--oracle", "cross-slice", "--truth", "x"], "named twice|name it once"),
        (["--strategies", "cross-slice", "--delta", "0"], "mining: delta is 0.0; allowed is a number above 0"),
        (["--strategies", "unlabeled", "--single-types", "lit"], "single_types has 'lit'.*did you mean 'lits'"),
        (["--strategies", "unlabeled", "--embeddings", "e"], "e: embeddings are of use to intra-patient alone"),
        (["--strategies", "intra-patient", "--match", "position", "--embeddings", "e"], "e: embeddings are of use"),
        (["--strategies", "unlabeled", "--bootstrap", "9"], "--bootstrap: only scores have intervals; give --truth"),
    ],
)
def test_one_line_refusals(case, tmp_path, capsys, arguments, message):
    path, folder = case()
    out = tmp_path / "out.json"
    assert main(["mine", str(path), str(folder), *arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not out.exists()


def test_proposals_of_another_file_and_missing_ones_are_refused(case, tmp_path, store):
    path, folder = case()
    other = AnnotationSet.load(path)
    other.lesions = other.lesions[:1]
    other.save(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"proposals of another annotation file, train\.json .* than .*other\.json"):
        mine_files(tmp_path / "other.json", [folder], strategies=["cross-slice"])
    ProposalStore(folder).path("1_02_01").unlink()
    with pytest.raises(InputError, match=r"no proposals of 1 volume of .*train\.json \(1_02_01\)"):
        mine_files(path, [folder], strategies=["cross-slice"])


@pytest.mark.parametrize(("kind", "name"), [("strategies", "every-slice"), ("oracles", "distillation")])
def test_a_header_that_names_an_unknown_strategy_is_refused(case, tmp_path, kind, name):
    path, folder = case()
    other = AnnotationSet.load(path)
    history = {"annotations_sha256": "0" * 64, "strategies": ["cross-slice"], "oracles": []} | {kind: [name]}
    other.dataset["mined"] = [history]
    other.save(tmp_path / "other.json")
    with pytest.raises(
        InputError, match=rf"other\.json: dataset\.mined names '{name}'; this version mines by .*unlabeled"
    ):
        mine_files(tmp_path / "other.json", [folder], strategies=["cross-slice"])


@pytest.mark.parametrize(
    ("oracles", "types", "message"),
    [
        (["cross-dataset"], ("foo",), r"oracle_types has 'foo'; lesions are of abdomen, bone, .*liver"),
        (["cross-dataset"], ("lver",), r"oracle_types has 'lver'; .*did you mean 'liver'"),
        (["cross-slice"], ("liver",), r"oracle_types is liver, which only .*; name one of cross-dataset, unlabeled as"),
    ],
)
def test_types_that_no_oracle_can_find_are_refused(volume, annotated, lesion, saved, tmp_path, oracles, types, message):
    known = annotated([volume("1_01_01")], [lesion(0, "1_01_01", 13, (10, 10, 34, 34), attributes={"lesion": 1})])
    truth = tmp_path / "truth.json"
    known.save(truth)
    with pytest.raises(InputError, match=message):
        mine_files(saved(known), oracles=oracles, options=MiningOptions(oracle_types=types), truth_file=truth)


def test_the_header_says_whether_every_slice_was_examined(case):
    path, folder = case()
    for strategies, every in ((["cross-slice"], False), (["cross-slice", "unlabeled"], True)):
        mined = mine_files(path, [folder], strategies=strategies, options=POSITION).annotations
        assert mined.dataset["mined"][-1]["every_slice"] is every


@pytest.mark.parametrize("history", [[{}], "yes", [{"annotations_sha256": 1, "strategies": [], "oracles": []}]])
def test_a_header_of_other_rounds_is_refused(case, tmp_path, history):
    path, folder = case()
    other = AnnotationSet.load(path)
    other.dataset["mined"] = history
    other.save(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"other\.json: dataset\.mined is not what `mmpluld mine` writes"):
        mine_files(tmp_path / "other.json", [folder], strategies=["cross-slice"])
