"""Phantoms in the layouts of LUNA16, LiTS and NIH-LN: file names, seeds, what is refused."""

from __future__ import annotations

import filecmp

import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.phantom import write_lits_layout, write_luna16_layout, write_nih_ln_layout
from mmpluld.structures import AnnotationSet

TINY = {"size": 32, "max_slices": 4}
WRITERS = {"luna16": write_luna16_layout, "lits": write_lits_layout, "nih-ln": write_nih_ln_layout}
NAMES = {
    "luna16": ["annotations.csv", "annotations_excluded.csv", "candidates_V2.csv", "seriesuids.csv",
               "subset0/1.2.826.0.1.3680043.10.1338.1.mhd", "subset0/1.2.826.0.1.3680043.10.1338.1.raw"],
    "lits": ["segmentation-0.nii", "volume-0.nii"],
    "nih-ln": ["CT Lymph Nodes/MED_LYMPH_001/01-01-2000-CT/1.000000-CT/1-001.dcm",
               "MED_ABD_LYMPH_ANNOTATIONS/MED_LYMPH_001/MED_LYMPH_001_lymphnodes_indices.txt",
               "MED_ABD_LYMPH_ANNOTATIONS/MED_LYMPH_001/MED_LYMPH_001_lymphnodes_physicalPoints.txt",
               "MED_ABD_LYMPH_ANNOTATIONS/MED_LYMPH_001/MED_LYMPH_001_lymphnodes_sizes.txt",
               "MED_ABD_LYMPH_MASKS/MED_LYMPH_001/MED_LYMPH_001_mask.nii.gz"],
}  # fmt: skip


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("layout", sorted(WRITERS))
def test_names_and_seed(layout, tmp_path):
    """The same for any number of processes; the first patients are those of a phantom of fewer."""
    one, two = (WRITERS[layout](tmp_path / f"{n}", 3, seed=4, workers=n, **TINY) for n in (1, 2))
    assert set(NAMES[layout]) <= set(files(one))
    assert files(one) == files(two)
    same = [name for name in files(one) if not name.endswith(".gz")]  # gzip writes the time
    assert filecmp.cmpfiles(one, two, same, shallow=False)[0] == same
    truth = AnnotationSet.load(one / "truth" / "complete.json")
    assert len(truth.volumes) == 3 and truth.dataset["label_scope"] == "universal-complete"
    assert [lesion.id for lesion in truth.lesions] == list(range(len(truth.lesions)))
    fewer = WRITERS[layout](tmp_path / "fewer", 1, seed=4, **TINY)
    images = [name for name in files(fewer) if name.endswith((".raw", ".nii", ".dcm"))]
    assert images
    assert filecmp.cmpfiles(one, fewer, images, shallow=False)[0] == images


def test_every_patient_of_nih_ln_has_a_node(tmp_path):
    root = write_nih_ln_layout(tmp_path / "nih-ln", 6, lesions_per_series=3.0, **TINY)
    truth = AnnotationSet.load(root / "truth" / "complete.json")
    for volume in truth.volumes:
        kind = "abdomen" if volume.id.startswith("ABD") else "mediastinum"
        assert any(lesion.volume == volume.id and lesion.type == kind for lesion in truth.lesions)


def test_other_folders_are_not_touched(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"full: exists and is not an empty folder"):
        write_lits_layout(tmp_path / "full", 1, **TINY)
    with pytest.raises(InputError, match=r"full: holds no lits phantom, so it is not overwritten"):
        write_lits_layout(tmp_path / "full", 1, overwrite=True, **TINY)
    with pytest.raises(InputError, match=r"num_patients=0: must be 1 or more"):
        write_lits_layout(tmp_path / "new", 0)


def test_overwriting_leaves_nothing_of_the_old_one(tmp_path):
    write_lits_layout(tmp_path / "lits", 2, **TINY)
    write_lits_layout(tmp_path / "lits", 1, overwrite=True, **TINY)
    assert "volume-1.nii" not in files(tmp_path / "lits")


def test_command(tmp_path, capsys):
    out = str(tmp_path / "luna")
    assert main(["phantom", "luna16", out, "--patients", "1", "--set", "size=32", "max_slices=4"]) == 0
    assert f"mmpluld convert luna16 {out}" in capsys.readouterr().out
    assert main(["convert", "luna16", out, "--split", "1", "0", "0"]) == 0
    assert main(["check-data", out]) == 0
    assert main(["phantom", "lits", str(tmp_path / "x"), "--patients", "1", "2", "3"]) == 2
    assert main(["phantom", "scan", str(tmp_path / "x.nii.gz"), "--patients", "5"]) == 2
    assert not (tmp_path / "x.nii.gz").exists()
    assert main(["convert", "luna16", out, "--masks", "exact"]) == 2
    assert "--masks: is no option of luna16, only of deeplesion" in capsys.readouterr().err


def test_what_no_phantom_writes_stops_overwriting(tmp_path):
    root = write_lits_layout(tmp_path / "lits", 1, **TINY)
    (root / "annotations").mkdir()  # of a conversion
    (root / "work_dirs").mkdir()
    (root / "work_dirs" / "epoch_20.pth").write_text("x")
    with pytest.raises(InputError, match=r"work_dirs: is no part of a lits phantom; move it away"):
        write_lits_layout(root, 1, overwrite=True, **TINY)
    assert (root / "work_dirs" / "epoch_20.pth").is_file() and (root / "volume-0.nii").is_file()
    (root / "work_dirs").rename(tmp_path / "away")
    write_lits_layout(root, 1, overwrite=True, **TINY)
    assert not (root / "annotations").exists()


def test_a_negative_seed_is_refused_before_anything_is_removed(tmp_path):
    root = write_lits_layout(tmp_path / "lits", 1, **TINY)
    before = files(root)
    with pytest.raises(InputError, match="seed=-1: must be 0 or more"):
        write_lits_layout(root, 1, seed=-1, overwrite=True, **TINY)
    assert files(root) == before
