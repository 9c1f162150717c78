"""NIH-LN to annotation files: instance masks, text annotations, what does not fit together."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest

from mmpluld.datasets.converters.nih_ln import convert_nih_ln, read_nih_ln_nodes
from mmpluld.datasets.converters.volume_store import raw_files
from mmpluld.errors import InputError
from mmpluld.io.slice_sources import open_source
from mmpluld.structures import AnnotationSet

MASKS, TEXTS = "MED_ABD_LYMPH_MASKS", "MED_ABD_LYMPH_ANNOTATIONS"


@pytest.fixture
def root(nih_ln, tmp_path):
    """A copy of the phantom: MED_LYMPH_001, ABD_LYMPH_002, MED_LYMPH_003."""
    return shutil.copytree(nih_ln, tmp_path / "nih-ln")


def convert(root, **options):
    report = convert_nih_ln(root, **({"fractions": (1, 0, 0), "min_voxels": 1} | options))
    return AnnotationSet.load(report.files["train"]), report


def change_mask(root, case, change):
    path = root / MASKS / case / f"{case}_mask.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj).copy()), image.affine), path)


def test_phantom_round_trip(root):
    found, report = convert(root)
    assert found.dataset == {"name": "nih-ln", "label_scope": "lymph-nodes"}
    assert [volume.id for volume in found.volumes] == ["ABD_LYMPH_002", "MED_LYMPH_001", "MED_LYMPH_003"]
    truth = AnnotationSet.load(root / "truth" / "complete.json")
    kinds = {"ABD": "abdomen", "MED": "mediastinum"}
    want = {(t.volume, t.box) for t in truth.lesions if t.type == kinds[t.volume[:3]]}
    got = {(lesion.volume, lesion.box) for lesion in found.lesions}
    assert got and got <= want and len(got) >= len(want) - 1  # one node may cover another
    assert all(lesion.attributes["label"] > 0 for lesion in found.lesions)
    assert any("sizes_mm" in lesion.attributes for lesion in found.lesions)
    source = open_source(found.volumes[0], root)
    assert source.read(0).min() <= -1000 and source.shape_yx == (64, 64)
    assert not any("mirrored" in what for what in report.remarks)


def test_cases_and_slices_behind_links(root, tmp_path):
    want = convert(root)[0].lesions
    (tmp_path / "slices").mkdir()
    (tmp_path / "linked").mkdir()
    for path in root.iterdir():
        if path.name not in ("volumes", "annotations"):
            (tmp_path / "linked" / path.name).symlink_to(path, target_is_directory=path.is_dir())
    case = next(path for path in root.rglob("MED_LYMPH_003") if path.parent.name not in (MASKS, TEXTS))
    for path in list(case.iterdir()):
        path.rename(tmp_path / "slices" / path.name)
    (case / "series").symlink_to(tmp_path / "slices", target_is_directory=True)
    assert raw_files(case) and all(path.is_relative_to(case / "series") for path in raw_files(case))
    assert convert(tmp_path / "linked")[0].lesions == want


def test_a_node_in_pieces_takes_the_largest_and_small_ones_are_ignored(root):
    def change(labels):
        labels[:] = 0
        labels[5:9, 6:8, 2:4] = 3
        labels[20, 20, 2] = 3
        labels[30, 30, 5] = 9
        return labels

    change_mask(root, "MED_LYMPH_001", change)
    found, report = convert(root, min_voxels=2)
    lesions = [lesion for lesion in found.lesions if lesion.volume == "MED_LYMPH_001"]
    # The file's third axis runs upwards through 10 slices.
    assert [lesion.box for lesion in lesions] == [(5.0, 6.0, 6.0, 9.0, 8.0, 8.0), (30.0, 30.0, 4.0, 31.0, 31.0, 5.0)]
    assert [lesion.ignore for lesion in lesions] == [False, True]
    mask = root / MASKS / "MED_LYMPH_001" / "MED_LYMPH_001_mask.nii.gz"
    assert report.remarks["node in several pieces, the largest taken"] == [f"{mask} label 3 (2 pieces)"]
    assert f"{mask} label 9" in report.remarks["node under 2 voxels, ignored"]


def test_a_mirrored_mask_is_refused_and_can_be_put_right(root):
    case, (x, y, z) = "MED_LYMPH_001", (10, 40, 3)
    folder = root / TEXTS / case
    image = nib.load(root / MASKS / case / f"{case}_mask.nii.gz")
    point = np.diag([-1, -1, 1, 1]) @ image.affine @ [x, y, z, 1]
    for kind, line in (("indices", f"{x} {y} {z}"), ("physicalPoints", "{} {} {}".format(*point)), ("sizes", "9")):
        (folder / f"{case}_lymphnodes_{kind}.txt").write_text(f"{line}\n")

    def change(labels):
        labels[:] = 0
        labels[64 - 12 : 64 - 8, 38:43, 2:5] = 1  # the node, mirrored along x
        return labels

    change_mask(root, case, change)
    found, report = convert(root)
    assert case not in [volume.id for volume in found.volumes]
    (left_out,) = report.remarks["volume left out"]
    assert "0 of 1 positions of the texts lie in a node of the mask, 1 if it is mirrored along x;" in left_out
    (root / "fix.csv").write_text(f"volume,flip_mask\n{case},x\n")
    found, report = convert(root, overrides=root / "fix.csv", overwrite=True)
    (lesion,) = [lesion for lesion in found.lesions if lesion.volume == case]
    assert (lesion.box[0], lesion.box[3]) == (8.0, 12.0)
    assert lesion.attributes["sizes_mm"] == [9.0]
    assert "mask mirrored along x" in report.remarks


def test_floats_near_a_node_are_that_node(root):
    want, _ = convert(root)
    for file in sorted((root / MASKS).rglob("*_mask.nii.gz")):
        image = nib.load(file)
        stored = (np.asarray(image.dataobj) * np.float32(0.9999999)).astype(np.float32)
        nib.save(nib.Nifti1Image(stored, image.affine), file)
    assert convert(root, overwrite=True)[0] == want


def test_what_is_no_number_of_a_node_refuses_the_volume(root):
    change_mask(root, "MED_LYMPH_001", lambda labels: np.full(labels.shape, 1001, np.int16))
    (left_out,) = convert(root)[1].remarks["volume left out"]
    assert "MED_LYMPH_001_mask.nii.gz: holds 1001 in " in left_out and "the numbers of the nodes, to 1000" in left_out


def test_without_masks_positions_and_sizes_make_the_boxes(root):
    with_masks, _ = convert(root)
    shutil.rmtree(root / MASKS)
    found, report = convert(root, overwrite=True)
    assert len(report.remarks["no mask, approximate boxes from positions and sizes"]) == 3
    assert len(found.lesions) >= len(with_masks.lesions)
    centres = [np.add(lesion.box[:2], lesion.box[3:5]) / 2 for lesion in found.lesions]
    for lesion in with_masks.lesions:
        if "sizes_mm" in lesion.attributes:
            centre = np.add(lesion.box[:2], lesion.box[3:5]) / 2
            assert min(np.abs(centre - other).max() for other in centres) < 0.01


def test_node_without_a_size_is_dropped_where_no_mask_shows_it(root):
    shutil.rmtree(root / MASKS)
    whole, _ = convert(root)
    name = whole.lesions[0].volume
    sizes = root / TEXTS / name / f"{name}_lymphnodes_sizes.txt"
    _, *others = sizes.read_text().splitlines(keepends=True)
    sizes.write_text("".join(["0.0\n", *others]))  # MED_LYMPH_010 of the dataset has such a node
    found, report = convert(root, overwrite=True)
    assert len(found.lesions) == len(whole.lesions) - 1
    (dropped,) = report.remarks["node of size 0, dropped"]
    assert dropped.startswith(f"{name} at [")


def test_a_mask_of_another_shape_and_a_case_without_truth_are_left_out(root):
    change_mask(root, "MED_LYMPH_001", lambda labels: labels[:-1])
    shutil.rmtree(root / MASKS / "MED_LYMPH_003")
    shutil.rmtree(root / TEXTS / "MED_LYMPH_003")
    found, report = convert(root)
    assert [volume.id for volume in found.volumes] == ["ABD_LYMPH_002"]
    first, second = report.remarks["volume left out"]
    assert "MED_LYMPH_001_mask.nii.gz: mask of 63x64x10 voxels on an image of 64x64x10" in first
    assert "MED_LYMPH_003: neither" in second


def test_faulty_texts(tmp_path):
    folder = tmp_path / "ABD_LYMPH_001"
    folder.mkdir()

    def write(indices="1 2 3\n", points="1.5 2 3\n", sizes="8 9\n"):
        for kind, text in (("indices", indices), ("physicalPoints", points), ("sizes", sizes)):
            (folder / f"ABD_LYMPH_001_lymphnodes_{kind}.txt").write_text(text)

    with pytest.raises(InputError, match=r"indices\.txt: cannot be read"):
        read_nih_ln_nodes(folder)
    write()
    (node,) = read_nih_ln_nodes(folder)
    assert (node.index, node.point_lps, node.sizes_mm) == ((1, 2, 3), (1.5, 2, 3), (8, 9))
    write("", "", "\n")
    assert read_nih_ln_nodes(folder) == []
    for change, message in (
        ({"indices": "1 2\n"}, r"indices\.txt: a line without three numbers"),
        ({"sizes": "8\n9\n"}, r"indices\.txt: 1 nodes, but 2 sizes"),
        ({"points": "1 b 3\n"}, r"physicalPoints\.txt: line 1: .*'b'"),
        ({"sizes": "nan\n"}, r"sizes\.txt: line 1: .*'nan'; needed is a finite number"),
    ):
        write(**change)
        with pytest.raises(InputError, match=message):
            read_nih_ln_nodes(folder)


def test_no_cases(tmp_path):
    with pytest.raises(InputError, match=r"no folders ABD_LYMPH_NNN"):
        convert_nih_ln(tmp_path)


def test_real_texts(real_data):
    cases = {folder.name: read_nih_ln_nodes(folder) for folder in sorted((real_data / "nih_ln" / TEXTS).iterdir())}
    for kind, count, nodes, sizes in (("ABD", 86, 595, {2}), ("MED", 90, 388, {1})):
        mine = {name: found for name, found in cases.items() if name.startswith(kind)}
        assert (len(mine), sum(map(len, mine.values()))) == (count, nodes)
        assert {len(node.sizes_mm) for found in mine.values() for node in found} == sizes
