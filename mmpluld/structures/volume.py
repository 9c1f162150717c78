"""A CT scan in canonical orientation that remembers exactly how its file stored it.

Canonical axes: +x to the patient's Left, +y to Posterior, +z to Inferior. World coordinates are LPS
millimetres. Boxes are voxel edges, points are voxel-centre indices (voxel ``i`` has its centre at ``i``, as
in ITK).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError, printable
from mmpluld.structures.boxes import boxes_hull_transform
from mmpluld.typing import FloatArray

__all__ = [
    "VOXEL_MM",
    "CTVolume",
    "boxes_to_world_lps",
    "checked_affine",
    "index_matrix",
    "inverse_index_matrix",
    "nearest_axes",
    "permute_boxes",
]

# World (LPS) directions of the canonical axes x, y, z.
_CANONICAL_SIGNS = np.array([1.0, 1.0, -1.0])
VOXEL_MM = (0.05, 50.0)
"""Smallest and largest voxel size that a CT can have; what is beyond was given in another unit."""
_MOST_OFF_RIGHT = 45.0  # degrees between axes; a gantry tilts by 30
_WIDEST_MM, _LONGEST_MM = 1500.0, 3000.0  # twice the bore of a scanner, and more than a whole body
_FARTHEST_MM = 1e6  # of a scanner's table from its isocentre; far beyond, positions lose their decimals


@dataclass(frozen=True, eq=False, repr=False)
class CTVolume:
    """A CT volume in Hounsfield units with its geometry.

    Attributes:
        array: (z, y, x) in canonical orientation, int16 or float32 HU.
        affine_lps: (4, 4), canonical voxel-centre index (x, y, z, 1) to LPS millimetres.
        source_shape: Sizes of the file's axes (i, j, k): ITK's index order, which is nibabel's array order.
        source_axes: For canonical x, y, z: the file axis it runs along, counted from 1, negative when it runs
            against it. ``(1, 2, -3)`` means x along i, y along j, z against k.
        source: Where the volume came from, for messages and reports; made printable.
        history: What was done to the volume or found in its files, oldest first; made printable.
        source_files: Files of the slices in their order along file axis k; empty where the slices have no files of
            their own.
        identifiers: What tells which patient's scan it is, such as the UID of its series: for those who ask for it.
    """

    array: npt.NDArray[Any]
    affine_lps: FloatArray
    source_shape: tuple[int, int, int]
    source_axes: tuple[int, int, int]
    source: str = "memory"
    history: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()
    source_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or self.array.size == 0:
            raise InputError(
                f"{self.source}: the volume has shape {self.array.shape}; needed are three axes of at least "
                "one voxel each, give a single CT volume"
            )
        if self.array.dtype not in (np.int16, np.float32):
            raise InputError(f"{self.source}: voxels are {self.array.dtype}; allowed are int16 and float32 HU, convert")
        if sorted(map(abs, self.source_axes)) != [1, 2, 3]:
            raise InputError(f"{self.source}: source_axes is {self.source_axes}; needed is a signed order of 1, 2, 3")
        expected = tuple(self.source_shape[abs(axis) - 1] for axis in self.source_axes)[::-1]
        if self.array.shape != expected:
            raise InputError(
                f"{self.source}: array shape {self.array.shape} does not follow from source_shape "
                f"{self.source_shape} and source_axes {self.source_axes}; needed is {expected}"
            )
        object.__setattr__(self, "affine_lps", checked_affine(self.affine_lps, self.source))
        object.__setattr__(self, "source", printable(self.source))
        object.__setattr__(self, "history", tuple(map(printable, self.history)))

    def __repr__(self) -> str:
        depth, height, width = self.array.shape
        z, y, x = self.spacing_mm
        return (
            f"<CTVolume {self.source!r}: {depth} x {height} x {width} voxels of {z:.3g} x {y:.3g} x {x:.3g} mm "
            f"(z, y, x), {self.array.dtype} HU>"
        )

    @classmethod
    def from_file_array(
        cls,
        array_ijk: npt.NDArray[Any],
        affine_lps: npt.ArrayLike,
        source: str,
        history: Sequence[str] = (),
        lengths: str = "the header, in mm",
    ) -> CTVolume:
        """Reorient a file's array to the nearest canonical axes; voxels are never resampled.

        For an oblique scan each canonical axis is matched to one file axis so that the sum of the absolute
        cosines is largest, and ``affine_lps`` keeps the true (oblique) geometry.

        Args:
            array_ijk: (i, j, k) in file order, int16 or float32 HU. It is copied only if the result would not
                be contiguous (an axis runs backwards, or the layout is not the file's own).
            affine_lps: (4, 4), file voxel-centre index (i, j, k, 1) to LPS millimetres.
            source: Name of the file for messages.
            history: Notes to keep.
            lengths: Field and unit that the voxel size was read from, for messages.

        Raises:
            InputError: If the array is not a non-empty 3D volume, the affine is singular or not finite, a voxel is
                smaller than 0.05 mm or larger than 50 mm, the volume is wider than 1.5 m or longer than 3 m, lies more
                than a kilometre off, or its axes are more than 45 degrees off right angles.
        """
        if array_ijk.ndim != 3:
            raise InputError(
                f"{source}: the image has {array_ijk.ndim} axes {array_ijk.shape}; needed is one 3D CT "
                "volume, split the file into volumes"
            )
        affine = checked_affine(affine_lps, source)
        _check_lengths(affine, source, lengths)
        axes = nearest_axes(affine)
        shape_ijk = (int(array_ijk.shape[0]), int(array_ijk.shape[1]), int(array_ijk.shape[2]))
        _check_extent(affine, shape_ijk, axes, source, lengths)
        return cls(
            array=_to_canonical(array_ijk, axes),
            affine_lps=affine @ index_matrix(axes, shape_ijk, edges=False),
            source_shape=shape_ijk,
            source_axes=axes,
            source=source,
            history=tuple(history),
        )

    @classmethod
    def from_canonical(
        cls,
        array: npt.NDArray[Any],
        spacing_mm: Sequence[float],
        origin_lps: Sequence[float] = (0.0, 0.0, 0.0),
        source: str = "memory",
    ) -> CTVolume:
        """Wrap an array that is canonical already, axis-aligned with the world.

        Args:
            array: (z, y, x), int16 or float32 HU.
            spacing_mm: (z, y, x).
            origin_lps: World position of the centre of voxel (0, 0, 0).
            source: Name for messages.

        Raises:
            InputError: If the array is not a non-empty 3D volume of these types, or a spacing is not 0.05 to 50 mm.
        """
        if not isinstance(array, np.ndarray) or array.ndim != 3:
            found = f"of shape {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            raise InputError(f"{source}: the volume is {found}; needed is an array of three axes (z, y, x)")
        affine = np.eye(4)
        affine[:3, :3] = np.diag(_three("spacing_mm", spacing_mm, source)[::-1] * _CANONICAL_SIGNS)
        affine[:3, 3] = _three("origin_lps", origin_lps, source)
        if not (np.diag(affine)[:3] * _CANONICAL_SIGNS > 0).all():
            raise InputError(f"{source}: spacing_mm is {spacing_mm}; allowed are numbers above 0, (z, y, x)")
        _check_lengths(affine, source, "spacing_mm")
        return cls(array, affine, (array.shape[2], array.shape[1], array.shape[0]), (1, 2, 3), source)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Canonical shape (z, y, x)."""
        return (self.array.shape[0], self.array.shape[1], self.array.shape[2])

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (z, y, x), millimetres."""
        x, y, z = np.linalg.norm(self.affine_lps[:3, :3], axis=0).tolist()
        return (z, y, x)

    @property
    def source_affine_lps(self) -> FloatArray:
        """(4, 4), voxel-centre index (i, j, k, 1) of the file, of ``source_shape``, to LPS millimetres."""
        to_source = index_matrix(self.source_axes, self.source_shape, edges=False)
        affine: FloatArray = self.affine_lps @ inverse_index_matrix(to_source)
        return affine

    @property
    def first_voxel(self) -> FloatArray:
        """Canonical voxel-centre index (x, y, z) of the file's first voxel: the one whose place its header tells."""
        to_source = index_matrix(self.source_axes, self.source_shape, edges=False)
        first: FloatArray = inverse_index_matrix(to_source)[:3, 3]
        return first

    def boxes_to_world_lps(self, boxes: npt.ArrayLike) -> FloatArray:
        """Return the axis-aligned hulls in LPS mm (N, 6) of canonical boxes (N, 6), near <= far on each axis.

        For an oblique scan the hull is larger than the box itself.
        """
        return boxes_to_world_lps(boxes, self.affine_lps)

    def boxes_to_source(self, boxes: npt.ArrayLike) -> FloatArray:
        """Turn canonical boxes (N, 6) into voxel edges of the file, ``(i1, j1, k1, i2, j2, k2)``."""
        return permute_boxes(boxes, index_matrix(self.source_axes, self.source_shape, edges=True))

    def boxes_from_source(self, boxes: npt.ArrayLike) -> FloatArray:
        """Turn voxel edges of the file ``(i1, j1, k1, i2, j2, k2)`` into canonical boxes (N, 6)."""
        return permute_boxes(boxes, inverse_index_matrix(index_matrix(self.source_axes, self.source_shape, edges=True)))

    def array_to_source(self) -> npt.NDArray[Any]:
        """Return the voxels in file order (i, j, k), a view."""
        order = np.argsort([abs(axis) for axis in self.source_axes]).tolist()
        view: npt.NDArray[Any] = _mirrored(self.array.transpose(), self.source_axes).transpose(order)
        return view

    def array_from_source(self, array_ijk: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn an array in this volume's file order (i, j, k) into canonical (z, y, x), as its own voxels were."""
        return _to_canonical(array_ijk, self.source_axes)

    def slice_to_source(self, z: int) -> tuple[int, int]:
        """Return (file axis counted from 0, index along it) of canonical slice ``z``."""
        axis = self.source_axes[2]
        index = z if axis > 0 else self.source_shape[-axis - 1] - 1 - z
        return abs(axis) - 1, index

    def points_to_world_lps(self, points_xyz: npt.ArrayLike) -> FloatArray:
        """Map canonical voxel-centre indices (..., 3), order (x, y, z), to LPS mm (..., 3)."""
        points = np.asarray(points_xyz, dtype=np.float64)
        world: FloatArray = points @ self.affine_lps[:3, :3].T + self.affine_lps[:3, 3]
        return world

    def points_from_world_lps(self, points_lps: npt.ArrayLike) -> FloatArray:
        """Map LPS mm (..., 3) to canonical voxel-centre indices (..., 3), order (x, y, z)."""
        offset = np.asarray(points_lps, dtype=np.float64) - self.affine_lps[:3, 3]
        points: FloatArray = offset @ np.linalg.inv(self.affine_lps[:3, :3]).T
        return points


def boxes_to_world_lps(boxes: npt.ArrayLike, affine_lps: npt.ArrayLike) -> FloatArray:
    """Return the axis-aligned hulls in LPS mm (N, 6) of boxes (N, 6), voxel edges.

    Args:
        boxes: In the voxels that ``affine_lps`` (4, 4) maps, by their centres, to LPS mm.
        affine_lps: See :class:`CTVolume`.
    """
    edge_affine = np.array(affine_lps, dtype=np.float64)
    edge_affine[:3, 3] -= 0.5 * edge_affine[:3, :3].sum(axis=1)
    return boxes_hull_transform(boxes, edge_affine)


def checked_affine(affine: npt.ArrayLike, source: str) -> FloatArray:
    """Return the affine as float64 (4, 4); refuse what cannot place voxels in space."""
    matrix = np.array(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise InputError(f"{source}: the affine has shape {matrix.shape}; needed is (4, 4)")
    with np.errstate(all="ignore"):
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        determinant = abs(np.linalg.det(matrix[:3, :3] / spacing))
    listed = "x".join(f"{value:g}" for value in spacing)
    if not (np.isfinite(matrix).all() and np.isfinite(spacing).all()):
        raise InputError(f"{source}: the geometry holds NaN or inf (voxel size {listed} mm); mend the file's header")
    if (spacing <= 0).any():
        raise InputError(f"{source}: voxel size {listed} mm; each must be above 0, mend the file's header")
    if not determinant > 1e-2:
        raise InputError(
            f"{source}: the affine is singular (two axes run along one direction); mend the orientation in the header"
        )
    return matrix


def _three(name: str, value: npt.ArrayLike, source: str) -> FloatArray:
    """Three finite numbers that a caller gave."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (3,) or not np.isfinite(numbers).all():
        raise InputError(f"{source}: {name} is {value!r}; needed are three numbers, in mm")
    return numbers


def _check_lengths(affine: FloatArray, source: str, lengths: str) -> None:
    """Refuse voxel sizes and positions that no CT has."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    least, most = VOXEL_MM
    # Headers in single precision miss the bounds by a little.
    if spacing.min() < least * (1 - 1e-5) or spacing.max() > most * (1 + 1e-5):
        listed = "x".join(f"{value:g}" for value in spacing)
        raise InputError(
            f"{source}: voxel size {listed} mm, from {lengths}; allowed is {least:g} to {most:g} mm along each axis, "
            "mend the unit or the numbers in the header"
        )
    if (farthest := float(np.abs(affine[:3, 3]).max())) > _FARTHEST_MM:
        raise InputError(
            f"{source}: its first voxel lies {farthest:g} mm from the origin; allowed are {_FARTHEST_MM:g}, mend the "
            "position in the header"
        )


def _check_extent(
    affine: FloatArray, shape: tuple[int, int, int], axes: tuple[int, int, int], source: str, lengths: str
) -> None:
    """Refuse a scan larger than any scanner makes, as pixels in another unit give, and axes that are no scanner's."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    order = [abs(axis) - 1 for axis in axes]
    extent = (spacing * shape)[order]
    if (extent > (_WIDEST_MM, _WIDEST_MM, _LONGEST_MM)).any():
        listed = " x ".join(f"{value:.4g}" for value in extent)
        raise InputError(
            f"{source}: the scan measures {listed} mm, from {lengths}; allowed are {_WIDEST_MM:g} mm across and "
            f"{_LONGEST_MM:g} mm along the body, mend the unit or the numbers in the header"
        )
    directions = affine[:3, :3] / spacing
    off = float(np.degrees(np.arcsin(min(1.0, np.abs(np.triu(directions.T @ directions, 1)).max()))))
    if off > _MOST_OFF_RIGHT:
        raise InputError(
            f"{source}: its axes are {off:.0f} degrees off a right angle; a tilted gantry makes at most 30, allowed "
            f"are {_MOST_OFF_RIGHT:g}, mend the directions in the header, or the positions of the slices"
        )


def nearest_axes(affine: FloatArray) -> tuple[int, int, int]:
    """Match canonical x, y, z to file axes; see ``CTVolume.source_axes`` for the coding."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = directions * _CANONICAL_SIGNS[:, None]
    best = max(permutations(range(3)), key=lambda order: sum(abs(cosines[c, order[c]]) for c in range(3)))
    x, y, z = (axis + 1 if cosines[c, axis] >= 0 else -(axis + 1) for c, axis in enumerate(best))
    return (x, y, z)


def _mirrored(array: npt.NDArray[Any], axes: Sequence[int]) -> npt.NDArray[Any]:
    """View with the axes reversed whose sign is negative."""
    return array[tuple(slice(None, None, -1 if axis < 0 else 1) for axis in axes)]


def _to_canonical(array_ijk: npt.NDArray[Any], axes: tuple[int, int, int]) -> npt.NDArray[Any]:
    """File order (i, j, k) to contiguous (z, y, x); copied only if it must be."""
    order = [abs(axis) - 1 for axis in axes[::-1]]
    return np.ascontiguousarray(_mirrored(array_ijk.transpose(order), axes[::-1]))


def index_matrix(axes: tuple[int, int, int], source_shape: tuple[int, int, int], edges: bool) -> FloatArray:
    """Return the (4, 4) matrix from canonical (x, y, z) to file (i, j, k), of voxel edges or else centres."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for canonical, signed in enumerate(axes):
        axis = abs(signed) - 1
        matrix[axis, canonical] = np.sign(signed)
        if signed < 0:
            matrix[axis, 3] = source_shape[axis] - (0 if edges else 1)
    return matrix


def inverse_index_matrix(matrix: FloatArray) -> FloatArray:
    """Of a signed permutation with an offset, exact."""
    inverse = np.eye(4)
    inverse[:3, :3] = matrix[:3, :3].T
    inverse[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return inverse


def permute_boxes(boxes: npt.ArrayLike, matrix: FloatArray) -> FloatArray:
    """Map boxes with a signed permutation: coordinates move or mirror, never mix, so integers stay."""
    source = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
    near = source[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    far = source[:, 3:] @ matrix[:3, :3].T + matrix[:3, 3]
    return np.concatenate([np.minimum(near, far), np.maximum(near, far)], axis=1)
