"""A tiny scan in any geometry, with findings whose places are computed by hand from its affine."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from mmpluld.structures import RECIST, CTVolume, Finding, ScanFindings, SliceMask

ORIENTATIONS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]
SHAPE_XYZ = (9, 8, 7)
# Canonical x1, y1, z1, x2, y2, z2; the second overlaps the first, the last has no voxel centre inside.
BOXES = [(1, 2, 1, 6, 6, 5), (4.6, 3.2, 2, 8.4, 7.4, 4), (0.1, 0.1, 5, 0.4, 0.3, 6)]
SPACING_XYZ = np.array([0.7, 0.9, 2.5])


def stored(order, signs, turn=None, shear_mm=0.0):
    """Shape and affine of a file whose axis ``n`` runs along canonical axis ``order[n]``, with or against it."""
    axes = np.diag([1.0, 1.0, -1.0]) * SPACING_XYZ
    axes[1, 2] += shear_mm
    axes = axes if turn is None else turn @ axes
    affine = np.eye(4)
    affine[:3, 3] = [-20.0, 30.0, 400.0]
    for axis, (canonical, sign) in enumerate(zip(order, signs, strict=True)):
        affine[:3, axis] = axes[:, canonical] * sign
        if sign < 0:
            affine[:3, 3] += axes[:, canonical] * (SHAPE_XYZ[canonical] - 1)
    return tuple(SHAPE_XYZ[canonical] for canonical in order), affine


def turned(degrees):
    """A rotation about the direction (1, 2, 3)."""
    x, y, z = np.array([1, 2, 3]) / np.sqrt(14)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


GEOMETRIES = [
    *(pytest.param(*item, None, 0.0, id=f"axes {item[0]} {item[1]}") for item in ORIENTATIONS),
    *(pytest.param(*item, turned(15), 0.0, id=f"oblique {item[0]} {item[1]}") for item in ORIENTATIONS[::13]),
    *(
        pytest.param(*item, None, 0.6, id=f"tilted {item[0]} {item[1]}")
        for item in [*ORIENTATIONS[::13], ((1, 0, 2), (-1, 1, -1))]
    ),
]


def findings_of(volume: CTVolume, name: str = "scan") -> ScanFindings:
    """Three findings, the first with mask, diameters and tags."""
    inside = np.array([[0, 1, 1], [1, 1, 0]], bool)
    mask = SliceMask.from_array(inside, (2, 3), volume.shape[1:])
    first = Finding.from_canonical(
        volume, BOXES[0], 0.9, 3, (1.5, 2, 6, 6), RECIST(3.0, 2.0, (0.0,) * 8), (("liver", 0.75),), mask
    )
    rest = [Finding.from_canonical(volume, box, 0.5, int(box[2]), np.array(box)[[0, 1, 3, 4]]) for box in BOXES[1:]]
    return ScanFindings(name, volume, (first, *rest), {"Model": "toy", "Weights": "toy.pth"})


@pytest.fixture
def found() -> ScanFindings:
    """Findings of a scan stored with its axes in another order."""
    shape, affine = stored((2, 0, 1), (-1, 1, -1))
    return findings_of(CTVolume.from_file_array(np.zeros(shape, np.int16), affine, "scan.nii.gz"))


@pytest.fixture
def in_world():
    """Function (volume, canonical box) -> (8, 3) corners of the box in LPS mm."""

    def corners(volume, box):
        points = np.array(list(product(*np.array(box).reshape(2, 3).T))) - 0.5
        return points @ volume.affine_lps[:3, :3].T + volume.affine_lps[:3, 3]

    return corners
