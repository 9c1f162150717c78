"""Lesion records as mining takes them."""

from __future__ import annotations

from dataclasses import replace

from mmpluld.mining.lesions import patients_of
from mmpluld.structures import AnnotationSet


def test_volumes_without_a_named_patient_are_patients_of_their_own(volume):
    named = [volume("p2_1_1"), volume("p1_1_2"), volume("p1_1_1")]
    nameless = [replace(item, id=f"scan{number}", patient="") for number, item in enumerate(named)]
    found = patients_of(AnnotationSet({}, named + nameless))
    together = [[item.id for item in volumes] for volumes in found.values()]
    assert sorted(together) == [["p1_1_1", "p1_1_2"], ["p2_1_1"], ["scan0"], ["scan1"], ["scan2"]]
