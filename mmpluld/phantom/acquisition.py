"""Taking the CT: sampling the patient slice by slice, slice thickness, table, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmpluld.phantom.anatomy import depth_range, paint_torso
from mmpluld.phantom.canvas import Array, Canvas, Window, unrolled
from mmpluld.phantom.lesions import Lesion
from mmpluld.phantom.patient import Patient

__all__ = ["Scan", "acquire", "table_hu"]

_CHUNK_VOXELS = 200_000  # keeps the working arrays of the painter in the cache
_KERNEL_MM = {"soft": 1.0, "sharp": 0.35}  # width of the noise grains


@dataclass(frozen=True)
class Scan:
    """How a series is taken.

    Attributes:
        size: Rows and columns.
        pixel_mm, first_mm, interval_mm, count: Grid; `first_mm` is the height of the first slice's centre.
        kernel: "soft" or "sharp".
        noise_hu: Standard deviation of the noise inside the body.
        offset_xy: Position of the patient on the table.
    """

    size: int
    pixel_mm: float
    first_mm: float
    interval_mm: float
    count: int
    kernel: str
    noise_hu: float
    offset_xy: tuple[float, float]

    def axis(self) -> Array:
        """Pixel centres in mm from the image centre."""
        return ((np.arange(self.size) - (self.size - 1) / 2) * self.pixel_mm).astype(np.float32)

    @property
    def layers(self) -> int:
        """Thin layers averaged into one slice."""
        return int(np.clip(round(self.interval_mm / max(self.pixel_mm, 1.25)), 1, 4))

    def heights(self) -> Array:
        """Heights of all thin layers in mm, `layers` per slice."""
        inner = (np.arange(self.layers) + 0.5) / self.layers - 0.5
        return ((np.arange(self.count)[:, None] + inner) * self.interval_mm + self.first_mm).astype(np.float32).ravel()


def acquire(
    rng: np.random.Generator,
    patient: Patient,
    lesions: list[Lesion],
    scan: Scan,
    organs: npt.NDArray[np.uint8] | None = None,
) -> tuple[npt.NDArray[np.int16], dict[int, tuple[tuple[int, int, int], Array]], dict[int, float]]:
    """Take one series.

    Args:
        rng: Source of the noise.
        patient, lesions, scan: What is taken, and how.
        organs: Where given, filled with the organ of every voxel (z, y, x), by the thin layer in the middle of each
            slice; the image is the same without.

    Returns:
        The image (z, y, x) in HU; for each lesion in it (by number) the origin (z, y, x) and block of the share that
        each voxel has in the lesion; for each lesion its contrast in HU to the tissue around it.
    """
    heights, axis = scan.heights(), scan.axis()
    x_mm, y_mm = axis + scan.offset_xy[0], axis + scan.offset_xy[1]
    blocks = {
        lesion.number: block
        for lesion in lesions
        if (block := _lesion_block(patient, lesion, scan, heights, y_mm, x_mm))
    }
    rows = _body_rows(patient, scan, y_mm, [window for window, _ in blocks.values()])
    image = np.full((scan.count, scan.size, scan.size), -1000.0, np.float32)
    step = max(1, _CHUNK_VOXELS // (scan.size**2 * scan.layers))
    for first in range(0, scan.count, step):
        last = min(first + step, scan.count)
        layers = slice(first * scan.layers, last * scan.layers)
        canvas = _canvas(patient, scan, heights[layers], y_mm, x_mm, rows)
        if organs is not None:
            canvas.organs = np.zeros(canvas.hu.shape, np.uint8)
        paint_torso(canvas, patient)
        for lesion in lesions:
            if lesion.number in blocks:
                _paint_lesion(canvas, lesion, blocks[lesion.number], layers.start, rows.start)
        image[first:last, rows] = canvas.hu.reshape(last - first, scan.layers, -1, scan.size).mean(axis=1)
        if organs is not None and canvas.organs is not None:
            organs[first:last, rows] = canvas.organs[scan.layers // 2 :: scan.layers]
    image = np.maximum(image, table_hu(patient, y_mm, x_mm), out=image)
    shares = {number: _shares(window, distance, scan) for number, (window, distance) in blocks.items()}
    contrast = {number: _contrast(image, *block) for number, block in shares.items()}
    noisy = image + _noise(rng, image, scan)
    return np.clip(np.rint(noisy), -1024, 3071).astype(np.int16), shares, contrast


def _body_rows(patient: Patient, scan: Scan, y_mm: Array, lesions: list[Window]) -> slice:
    """Rows that may hold a part of the patient; a third of an image is air in front and behind."""
    low, high = (np.array([[0.0, side, 0.0]], np.float32) for side in depth_range(patient))
    wide = np.array([[np.abs(scan.axis()).max() / patient.frame.scale[2], 0.0, 0.0]], np.float32)
    low, high = unrolled(patient.frame.roll, low - wide, high + wide)
    slack = np.float32(4 * patient.frame.warp_mm + scan.pixel_mm)
    axis = y_mm / np.float32(patient.frame.scale[1])
    first, last = int(np.searchsorted(axis, low[0, 1] - slack)), int(np.searchsorted(axis, high[0, 1] + slack))
    return slice(min([first, *(item[1].start for item in lesions)]), max([last, *(item[1].stop for item in lesions)]))


def _canvas(patient: Patient, scan: Scan, heights: Array, y_mm: Array, x_mm: Array, rows: slice) -> Canvas:
    frame = patient.frame
    z, y, x = frame.coordinates(heights, y_mm, x_mm)
    axes = frame.axes(heights, y_mm, x_mm)
    # Fields of the whole grid, of which rows are taken: matrix products of another shape may round otherwise.
    lumps, grain = patient.lumps.on_axes(*axes), patient.grain.on_axes(*axes)
    return Canvas(
        axes[0], axes[1][rows], axes[2], z, y[:, rows], x[:, rows], lumps[:, rows], grain[:, rows], scan.pixel_mm,
        4 * frame.warp_mm, frame.roll,
    )  # fmt: skip


def _lesion_block(
    patient: Patient, lesion: Lesion, scan: Scan, heights: Array, y_mm: Array, x_mm: Array
) -> tuple[Window, Array] | None:
    """Window on the thin layers and signed distance of one lesion; whole slices, None outside the scan."""
    in_plane = 4 * patient.frame.warp_mm + scan.pixel_mm
    slack = (lesion.reach + scan.pixel_mm + np.array([in_plane, in_plane, 0])).astype(np.float32)
    centre = np.array([lesion.centre], np.float32)
    low, high = unrolled(patient.frame.roll, centre - slack, centre + slack)
    axes = patient.frame.axes(heights, y_mm, x_mm)
    spans = [
        (int(np.searchsorted(axis, low[0, column])), int(np.searchsorted(axis, high[0, column])))
        for axis, column in zip(axes, (2, 1, 0), strict=True)
    ]
    n = scan.layers
    spans[0] = (spans[0][0] // n * n, -(-spans[0][1] // n) * n)
    if any(first >= last for first, last in spans):
        return None
    window = (slice(*spans[0]), slice(*spans[1]), slice(*spans[2]))
    z, y, x = patient.frame.coordinates(heights[window[0]], y_mm[window[1]], x_mm[window[2]])
    return window, lesion.distance(z, y, x)


def _paint_lesion(
    canvas: Canvas, lesion: Lesion, block: tuple[Window, Array], first_layer: int, first_row: int
) -> None:
    """Paint the part of a lesion that lies in this block of layers."""
    window, distance = block
    start, stop = max(window[0].start, first_layer), min(window[0].stop, first_layer + len(canvas.hu))
    if start >= stop:
        return
    part = distance[start - window[0].start : stop - window[0].start]
    rows = slice(window[1].start - first_row, window[1].stop - first_row)
    target = (slice(start - first_layer, stop - first_layer), rows, window[2])
    canvas.paint(target, part, lesion.values(part, canvas.grain[target]))


def _shares(window: Window, distance: Array, scan: Scan) -> tuple[tuple[int, int, int], Array]:
    """Share of every voxel of the finished slices in a lesion."""
    share = np.clip(0.5 - distance / np.float32(scan.pixel_mm), 0, 1)
    depth, height, width = share.shape
    share = share.reshape(depth // scan.layers, scan.layers, height, width).mean(axis=1)
    return (window[0].start // scan.layers, window[1].start, window[2].start), share


def _block_of(origin: tuple[int, int, int], share: Array) -> Window:
    """Where a block of shares lies in the image."""
    z, y, x = (slice(start, start + count) for start, count in zip(origin, share.shape, strict=True))
    return z, y, x


def _contrast(image: Array, origin: tuple[int, int, int], share: Array) -> float:
    """Mean HU of the lesion minus the median of a shell about two voxels around it."""
    from scipy import ndimage

    part = image[_block_of(origin, share)]
    inside = share > 0.9
    if not inside.any():
        inside = share >= share.max()
    shell = ndimage.binary_dilation(share > 0.05, np.ones((1, 3, 3), bool), iterations=2) & (share <= 0.0)
    return float(part[inside].mean() - np.median(part[shell])) if shell.any() else 0.0


def table_hu(patient: Patient, y_mm: Array, x_mm: Array) -> Array:
    """HU of the couch, two thin curved shells behind the patient; -1000 elsewhere. (H, W)."""
    back = (92 + patient.fat_mm[2]) * patient.frame.scale[1] + 6
    curve = back - x_mm[None] ** 2 / 1500
    pixel = float(x_mm[1] - x_mm[0])
    hu = np.full((len(y_mm), len(x_mm)), -1000.0, np.float32)
    for offset, half, value in ((0.0, 1.2, 50.0), (26.0, 0.8, -150.0)):
        distance = np.abs(y_mm[:, None] - curve - offset - offset * x_mm[None] ** 2 / 90000) - half
        hu += np.clip(0.5 - distance / pixel, 0, 1) * (value - hu)
    return hu


def _noise(rng: np.random.Generator, image: Array, scan: Scan) -> Array:
    """Spatially correlated noise; weaker in air, stronger through the wide parts of the body."""
    from scipy import ndimage

    white = rng.standard_normal(image.shape, dtype=np.float32)
    sigma = _KERNEL_MM[scan.kernel] / scan.pixel_mm
    if sigma > 0.2:
        white = ndimage.gaussian_filter(white, (0, sigma, sigma), mode="wrap", truncate=3.0)
        white /= max(float(white.std()), 1e-6)
    weight = np.clip((image + 1000) / 1000, 0.35, 1.0)
    width = (image > -400).mean(axis=(1, 2), keepdims=True)
    weight *= (np.clip(0.6 + width, 0.7, 1.3) * scan.noise_hu).astype(np.float32)
    white *= weight
    return white
