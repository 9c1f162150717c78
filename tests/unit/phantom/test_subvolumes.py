from __future__ import annotations

from mmpluld.phantom.subvolumes import cut_subvolumes
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord


def test_parts_hold_what_lies_in_them(tmp_path):
    def series(name, interval, first=1, count=60):
        return VolumeRecord(name, name, "1", "1", {"kind": "png16", "path": name}, first, count, (64, 64),
                            (interval, 1.0, 1.0))  # fmt: skip

    def lesion(number, volume, z1, z2, marked=False):
        return LesionRecord(number, volume, (1.0, 2.0, z1, 3.0, 4.0, z2), key_slice=int(z1), recist=(1.0,) * 8,
                            attributes={"marked": marked})  # fmt: skip

    truth = AnnotationSet(
        {"name": "phantom", "label_scope": "complete"},
        [series("a", 2.0), series("b", 5.0), series("c", 2.0)],
        [
            lesion(0, "a", 30.0, 32.0, marked=True),
            lesion(1, "a", 10.0, 17.0),  # two of its seven slices are inside
            lesion(2, "a", 43.0, 49.0),  # three of six
            lesion(3, "a", 2.0, 9.0),
            lesion(4, "b", 3.0, 4.0, marked=True),  # the part ends at the series' end
            lesion(5, "c", 30.0, 31.0),
        ],
    )
    found = cut_subvolumes(truth)
    assert [(v.id, v.first_slice, v.num_slices) for v in found.volumes] == [("a_015-045", 15, 31), ("b_001-009", 1, 9)]
    assert [(item.volume, item.box[2], item.box[5], item.key_slice, item.ignore) for item in found.lesions] == [
        ("a_015-045", 30.0, 32.0, 30, False),
        ("a_015-045", 15.0, 17.0, None, True),
        ("a_015-045", 43.0, 46.0, 43, False),
        ("b_001-009", 3.0, 4.0, 3, False),
    ]
    assert [item.recist is None for item in found.lesions] == [False, True, False, False]
    found.save(tmp_path / "parts.json")
    assert AnnotationSet.load(tmp_path / "parts.json").lesions == found.lesions
