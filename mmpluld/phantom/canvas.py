"""Painting soft-edged shapes, given in body millimetres, on a block of CT slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mmpluld.phantom.organs import Organ

__all__ = ["Array", "BodyFrame", "Canvas", "Capsules", "SmoothField", "Window", "ellipsoid_bounds", "unrolled"]

Array = npt.NDArray[np.float32]
Window = tuple[slice, slice, slice]

EXTENT_MM = ((-10.0, 660.0), (-150.0, 150.0), (-210.0, 210.0))  # z, y, x range that smooth fields cover


def _bspline_matrix(positions: Array, low: float, step: float, count: int) -> Array:
    """Rows of cubic B-spline weights for `count` control points at ``low + step * i``."""
    t = np.clip((positions - low) / step, 1.0, count - 2.001)
    base = np.floor(t).astype(np.intp)
    u = (t - base).astype(np.float32)
    weights = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3]) / 6.0
    matrix = np.zeros((len(positions), count), np.float32)
    rows = np.arange(len(positions))
    for offset in range(4):
        matrix[rows, base - 1 + offset] = weights[offset]
    return matrix


class SmoothField:
    """Random smooth function of body position with zero mean and about unit variance.

    Args:
        rng: Source of the control values.
        step_mm: Distance of the control points; structures are about twice as large.
    """

    def __init__(self, rng: np.random.Generator, step_mm: float) -> None:
        self.step = step_mm
        shape = [int((high - low) / step_mm) + 4 for low, high in EXTENT_MM]
        # A cubic B-spline averages its control values; 0.4793 is the variance left per axis, on average.
        self.control = (rng.standard_normal(shape) / 0.4793**1.5).astype(np.float32)

    def on_axes(self, z: Array, y: Array, x: Array) -> Array:
        """Values on the grid of three 1D axes in mm, shape (len(z), len(y), len(x))."""
        matrices = [
            _bspline_matrix(axis, low - self.step, self.step, count)
            for axis, (low, _), count in zip((z, y, x), EXTENT_MM, self.control.shape, strict=True)
        ]
        values: Array = np.tensordot(matrices[0], self.control, axes=(1, 0))
        values = np.matmul(matrices[1], values)
        return np.asarray(np.matmul(values, matrices[2].T), np.float32)

    def renewed(self, rng: np.random.Generator, share: float) -> SmoothField:
        """A field of which that share of the variance, in [0, 1], is new and the rest is this one's."""
        other = SmoothField(rng, self.step)
        other.control *= np.float32(share**0.5)
        other.control += np.float32((1 - share) ** 0.5) * self.control
        return other


_DIAPHRAGM_MM, _BREATH_REACH_MM = 230.0, 90.0


@dataclass(frozen=True)
class BodyFrame:
    """Map from patient millimetres to the standard torso: scale, posture, breath and a smooth in-plane warp."""

    scale: tuple[float, float, float]
    """Patient size over standard size along (z, y, x)."""
    warp_x: SmoothField
    warp_y: SmoothField
    warp_mm: float
    roll: float = 0.0
    """Turn about the long axis, in radians."""
    breath_mm: float = 0.0
    """How far what lies at the diaphragm is moved up, less the further away from it."""

    def axes(self, z: Array, y: Array, x: Array) -> tuple[Array, Array, Array]:
        """Heights in the standard torso, and in-plane millimetres of its scale before roll and warp; all 1D."""
        sz, sy, sx = (np.float32(value) for value in self.scale)
        zs = z / sz
        zs = zs + np.float32(self.breath_mm) * np.exp(-(((zs - _DIAPHRAGM_MM) / _BREATH_REACH_MM) ** 2))
        return zs.astype(np.float32), y / sy, x / sx

    def coordinates(self, z: Array, y: Array, x: Array) -> tuple[Array, Array, Array]:
        """Standard-torso coordinates of a patient grid: z (D, 1, 1), y and x (D, H, W)."""
        zs, ys, xs = self.axes(z, y, x)
        wx = self.warp_x.on_axes(zs, ys, xs)
        wy = self.warp_y.on_axes(zs, ys, xs)
        amplitude, c, s = (np.float32(value) for value in (self.warp_mm, np.cos(self.roll), np.sin(self.roll)))
        wx *= amplitude
        wy *= amplitude
        wx += c * xs + (s * ys)[:, None]
        wy += (c * ys)[:, None] - s * xs
        return zs[:, None, None], wy, wx


def unrolled(roll: float, low: Array, high: Array) -> tuple[Array, Array]:
    """Boxes, before the roll, that hold what lies in boxes of the standard torso after it.

    Args:
        roll: `BodyFrame.roll`.
        low, high: Corners (N, 3), x, y, z.
    """
    if not roll:
        return low, high
    c, s = np.float32(np.cos(roll)), np.float32(np.sin(roll))
    middle, half = (low + high) / 2, (high - low) / 2
    turned, wide = middle.copy(), half.copy()
    turned[:, 0], turned[:, 1] = c * middle[:, 0] - s * middle[:, 1], s * middle[:, 0] + c * middle[:, 1]
    wide[:, 0], wide[:, 1] = c * half[:, 0] + abs(s) * half[:, 1], abs(s) * half[:, 0] + c * half[:, 1]
    return turned - wide, turned + wide


@dataclass(frozen=True)
class Capsules:
    """Tapered capsules: `starts`, `ends` (N, 3) x, y, z in mm, `start_radii`, `end_radii` (N,)."""

    starts: Array
    ends: Array
    start_radii: Array
    end_radii: Array

    @classmethod
    def chain(cls, points: npt.ArrayLike, radii: npt.ArrayLike) -> Capsules:
        """Capsules along a polyline through `points` (N, 3); `radii` is (N,) or one for all."""
        line = np.asarray(points, np.float32)
        thick = np.broadcast_to(np.asarray(radii, np.float32), len(line))
        return cls(line[:-1], line[1:], thick[:-1], thick[1:])

    def thinner(self, by_mm: float) -> Capsules:
        """The same with smaller radii."""
        less = np.float32(by_mm)
        return Capsules(self.starts, self.ends, self.start_radii - less, self.end_radii - less)

    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest corners, each (N, 3)."""
        reach = np.maximum(self.start_radii, self.end_radii)[:, None]
        return np.minimum(self.starts, self.ends) - reach, np.maximum(self.starts, self.ends) + reach

    def distance(self, i: int, z: Array, y: Array, x: Array) -> Array:
        """Signed distance (mm) to capsule `i`."""
        start, axis = self.starts[i], self.ends[i] - self.starts[i]
        dx, dy, dz = x - start[0], y - start[1], z - start[2]
        t = dx * axis[0]
        t += dy * axis[1]
        t += dz * axis[2]
        t /= axis @ axis + np.float32(1e-6)
        t.clip(0, 1, out=t)
        dx -= t * axis[0]
        dy -= t * axis[1]
        dz = dz - t * axis[2]
        dx *= dx
        dy *= dy
        dz *= dz
        dx += dy
        dx += dz
        np.sqrt(dx, out=dx)
        dx -= self.start_radii[i]
        t *= self.end_radii[i] - self.start_radii[i]
        dx -= t
        return np.asarray(dx, np.float32)


def ellipsoid_bounds(
    centre: tuple[float, float, float], radii: tuple[float, float, float], turn: float = 0.0, lumpy_mm: float = 0.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lowest and highest corners, each (3,), of what `Canvas.ellipsoid` paints."""
    reach = np.asarray(radii, np.float32) + np.float32(2.5 * lumpy_mm)
    if turn:
        reach[:2] = reach[:2].max()
    return np.asarray(centre) - reach, np.asarray(centre) + reach


@dataclass
class Canvas:
    """A block of slices being painted.

    Args:
        z_mm, y_mm, x_mm: Axes of the block, see `BodyFrame.axes`.
        z, y, x: The warped coordinates, see `BodyFrame.coordinates`.
        lumps, grain: Smooth fields of about 30 mm and 8 mm structure; they make outlines and tissue uneven.
        edge_mm: Width of the soft edge of every shape, about one pixel.
        slack_mm: How far the warp can move a shape in the plane.
        roll: `BodyFrame.roll`.
        organs: Organ of every voxel, uint8 (D, H, W), kept beside the picture; None keeps none.
        part: The organ that is being painted; None leaves the map of organs as it is.
        hu: The picture, float32 (D, H, W).
    """

    z_mm: Array
    y_mm: Array
    x_mm: Array
    z: Array
    y: Array
    x: Array
    lumps: Array
    grain: Array
    edge_mm: float
    slack_mm: float
    roll: float = 0.0
    organs: npt.NDArray[np.uint8] | None = None
    part: Organ | None = field(default=None, init=False)
    hu: Array = field(init=False)

    def __post_init__(self) -> None:
        self.hu = np.full(self.x.shape, -1000.0, np.float32)

    @property
    def full(self) -> Window:
        """Window of the whole block."""
        depth, height, width = self.hu.shape
        return slice(0, depth), slice(0, height), slice(0, width)

    def windows(self, low: Array, high: Array) -> list[tuple[int, Window]]:
        """Index and window of each box from `low` to `high`, both (N, 3) x, y, z in mm, that meets the block."""
        low, high = unrolled(self.roll, low, high)
        wide = self.slack_mm + self.edge_mm
        spans = []
        for axis, column, slack in ((self.z_mm, 2, self.edge_mm), (self.y_mm, 1, wide), (self.x_mm, 0, wide)):
            spans.append(axis.searchsorted(low[:, column] - np.float32(slack)))
            spans.append(axis.searchsorted(high[:, column] + np.float32(slack), side="right"))
        z1, z2, y1, y2, x1, x2 = spans
        meets = ((z1 < z2) & (y1 < y2) & (x1 < x2)).nonzero()[0]
        ends = (span[meets].tolist() for span in spans)
        return [
            (i, (slice(z1, z2), slice(y1, y2), slice(x1, x2)))
            for i, z1, z2, y1, y2, x1, x2 in zip(meets.tolist(), *ends, strict=True)
        ]

    def window(self, low: npt.ArrayLike, high: npt.ArrayLike) -> Window | None:
        """Window that surely contains the box from `low` to `high` (x, y, z, in mm), or None if it is outside."""
        found = self.windows(np.asarray(low, np.float32)[None], np.asarray(high, np.float32)[None])
        return found[0][1] if found else None

    def coverage(self, distance: Array) -> Array:
        """Share of a voxel inside a shape, from the signed distance."""
        share: Array = distance * np.float32(-1.0 / self.edge_mm)
        share += np.float32(0.5)
        return share.clip(0, 1, out=share)

    def paint(self, window: Window, distance: Array, value: float | Array) -> None:
        """Blend `value` (HU) where `distance` is negative."""
        block, share = self.hu[window], self.coverage(distance)
        change = value - block
        change *= share
        block += change
        self.assign(window, share)

    def assign(self, window: Window, share: Array) -> None:
        """Give the voxels that lie by more than half in a shape to the organ that is being painted."""
        if self.organs is not None and self.part is not None:
            self.organs[window][share > 0.5] = self.part

    @contextmanager
    def within(self, window: Window, distance: Array) -> Iterator[None]:
        """Keep what the block paints into a window only where `distance` is negative."""
        share = self.coverage(distance)
        hu = self.hu[window].copy()
        organs = None if self.organs is None else self.organs[window].copy()
        yield
        self.hu[window] = hu + share * (self.hu[window] - hu)
        if self.organs is not None and organs is not None:
            self.organs[window] = np.where(share > 0.5, self.organs[window], organs)

    def ellipsoid(
        self,
        centre: tuple[float, float, float],
        radii: tuple[float, float, float],
        value: float | None,
        *,
        turn: float = 0.0,
        lumpy_mm: float = 0.0,
    ) -> tuple[Window, Array] | None:
        """Paint an ellipsoid at `centre` (x, y, z), turned by `turn` radians in the plane.

        Returns its window and signed distance for further painting (`value` None paints nothing), or None outside.
        """
        window = self.window(*ellipsoid_bounds(centre, radii, turn, lumpy_mm))
        if window is None:
            return None
        dx, dy = self.x[window] - np.float32(centre[0]), self.y[window] - np.float32(centre[1])
        dz = self.z[window[0]] - np.float32(centre[2])
        if turn:
            c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
            dx, dy = c * dx + s * dy, c * dy - s * dx
        dx /= np.float32(radii[0])
        dy /= np.float32(radii[1])
        dz = dz / np.float32(radii[2])
        dx *= dx
        dy *= dy
        dx += dy
        dx += dz * dz
        distance = np.sqrt(dx, out=dx)
        distance -= 1
        distance *= np.float32(min(radii))
        if lumpy_mm:
            distance += np.float32(lumpy_mm) * self.lumps[window]
        if value is not None:
            self.paint(window, distance, value)
        return window, distance

    def tubes(self, capsules: Capsules, value: float) -> None:
        """Paint capsules one after the other."""
        for i, window in self.windows(*capsules.bounds()):
            self.paint(window, capsules.distance(i, self.z[window[0]], self.y[window], self.x[window]), value)

    def hollow(
        self, capsules: Capsules, wall_mm: float, wall_value: float, value: float, air_y: float | None = None
    ) -> None:
        """Paint a hollow organ: first the walls of all capsules, then what fills their common lumen.

        With `air_y`, gas fills what lies in front of that depth: the patient is on the back.
        """
        parts = [
            (window, capsules.distance(i, self.z[window[0]], self.y[window], self.x[window]))
            for i, window in self.windows(*capsules.bounds())
        ]
        for window, distance in parts:
            self.paint(window, distance, wall_value)
        for window, distance in parts:
            distance += np.float32(wall_mm)
            self.paint(window, distance, value)
            if air_y is not None:
                self.paint(window, np.maximum(distance, self.y[window] - np.float32(air_y)), -880.0)
