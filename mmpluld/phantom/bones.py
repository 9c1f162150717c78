"""Painting the skeleton of the torso."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmpluld.phantom.canvas import Array, Canvas, Capsules
from mmpluld.phantom.organs import Organ

__all__ = ["RIB_PITCH_MM", "paint_pelvic_bones", "paint_rib_cage", "paint_shoulders", "paint_spine", "spine_centre"]

RIB_PITCH_MM = 25.0
CORTEX_HU, MARROW_HU, DISC_HU = 560.0, 210.0, 85.0
_SPINE_Z = (-40.0, 0.0, 100.0, 200.0, 300.0, 400.0, 450.0, 500.0, 560.0, 620.0)
_SPINE_Y = (20.0, 28.0, 40.0, 43.0, 36.0, 26.0, 30.0, 46.0, 62.0, 52.0)
# Angle from the spine (rad) and how far a rib has descended there (mm); it climbs again as cartilage.
_RIB_ANGLE = (0.0, 0.5, 1.2, 1.9, 2.4, 2.8, 3.15)
_RIB_DROP = (0.0, 15.0, 46.0, 76.0, 90.0, 83.0, 66.0)
_RIB_END = np.array([3.0, 3.02, 3.02, 3.02, 3.02, 3.0, 2.95, 2.7, 2.55, 2.4, 1.9, 1.45], np.float32)


def spine_centre(z: Array) -> Array:
    """Depth y of the vertebral body centre at height z."""
    return np.interp(z, _SPINE_Z, _SPINE_Y).astype(np.float32)


def _pitch_phase(z: Array) -> tuple[Array, Array]:
    """Vertebral level: pitch (mm) and offset from the body's middle, both shaped like z."""
    low = np.array([-40, 0, 150, 300, 450, 640], np.float32)
    count = np.array([-1.9, 0, 6.4, 11.8, 16.1, 21.0], np.float32)
    level = np.interp(z, low, count).astype(np.float32)
    pitch = np.interp(z, [0, 300, 420], [22.5, 29, 35]).astype(np.float32)
    return pitch, np.asarray((level - np.round(level)) * pitch, np.float32)


def paint_spine(canvas: Canvas) -> None:
    """Vertebral bodies, discs, canal, arch, processes; the sacrum below."""
    window = canvas.window(np.array([-60.0, -20.0, -60.0]), np.array([60.0, 110.0, 460.0]))
    if window is None:
        return
    z, y, x = canvas.z[window[0]], canvas.y[window], canvas.x[window]
    centre = spine_centre(z)
    pitch, offset = _pitch_phase(z)
    wide = np.interp(z, [0, 150, 300, 430], [13, 15.5, 20, 25]).astype(np.float32)
    deep = np.interp(z, [0, 150, 300, 430], [9.5, 14, 16.5, 18]).astype(np.float32)
    dy = y - centre
    end_of_data = z - 452
    waist = 1 + 0.1 * np.cos(np.clip(np.abs(offset) / pitch, 0, 0.5) * 2 * np.pi + np.pi)
    dented = np.maximum(dy - deep * 0.62, 0) * 0.9
    body = (np.sqrt((x / (wide * waist)) ** 2 + ((dy + dented) / (deep * waist)) ** 2) - 1) * deep
    plate = np.abs(offset) - pitch * 0.39
    bone = np.maximum(np.maximum(body, plate), end_of_data)
    canvas.part = Organ.BONE
    canvas.paint(window, np.maximum(body + 0.5, end_of_data), DISC_HU)
    # Arch first, so that the canal can be cut out of it.
    canal_y = deep + 9.5
    arch = np.maximum(np.sqrt((x / 19) ** 2 + ((dy - canal_y) / 14) ** 2) * 14 - 14, np.abs(offset + 4) - pitch * 0.36)
    spinous = np.maximum(np.abs(x) - 2.6, np.maximum(canal_y + 8 - dy, dy - canal_y - 33 + 0.15 * np.abs(offset)))
    spinous = np.maximum(spinous, np.abs(offset - 5) - pitch * 0.3)
    transverse = np.maximum(np.abs(dy - canal_y + 1 - 0.28 * (np.abs(x) - 12)) - 3.2, np.abs(x) - wide - 17)
    transverse = np.maximum(transverse, np.abs(offset + 3) - 5.0)
    facet = np.sqrt((np.abs(x) - 15) ** 2 + (dy - canal_y - 2) ** 2) - 6.5
    facet = np.maximum(facet, np.abs(offset) - pitch * 0.45)
    posterior = np.minimum(np.minimum(arch, spinous), np.minimum(transverse, facet))
    posterior = np.maximum(posterior, end_of_data)
    grain = canvas.grain[window]
    _paint_bone(canvas, window, posterior, 2.0, MARROW_HU + 60 + 25 * grain)
    _paint_bone(canvas, window, bone, 1.4, MARROW_HU + 22 * grain)
    canal = np.sqrt((x / 11.5) ** 2 + ((dy - canal_y + 1) / 8.8) ** 2) * 9 - 9
    canvas.part = Organ.SPINAL_CANAL
    canvas.paint(window, np.maximum(canal, end_of_data), -20.0)
    canvas.paint(window, np.maximum(np.sqrt(x * x + (dy - canal_y + 1) ** 2) - 7.5, end_of_data), 32.0)


def _paint_bone(
    canvas: Canvas, window: tuple[slice, slice, slice], distance: Array, cortex_mm: float, marrow: float | Array
) -> None:
    canvas.paint(window, distance, CORTEX_HU)
    canvas.paint(window, distance + np.float32(cortex_mm), marrow)


def paint_rib_cage(canvas: Canvas, cavity: Array) -> None:
    """Twelve pairs of ribs as arcs that descend towards the front, cartilage, sternum and clavicles."""
    canvas.part = Organ.BONE
    if float(canvas.z_mm[0]) < 400:
        near = np.flatnonzero((np.abs(cavity - 4.5) < 8).ravel())
        if len(near):
            _paint_ribs(canvas, cavity, near)
    sternum = canvas.window(np.array([-30.0, -110.0, 40.0]), np.array([30.0, -40.0, 232.0]))
    if sternum is not None:
        z, x = canvas.z[sternum[0]], canvas.x[sternum]
        half = np.interp(z, [40, 60, 90, 110, 200, 225], [28, 25, 15, 17, 16, 6]).astype(np.float32)
        plate = (np.sqrt((x / half) ** 2 + ((cavity[sternum] - 4.5) / 6.5) ** 2) - 1) * 6.5
        plate = np.maximum(plate, np.maximum(46 - z, z - 225))
        _paint_bone(canvas, sternum, plate.astype(np.float32), 1.6, 150.0)


def _paint_ribs(canvas: Canvas, cavity: Array, near: npt.NDArray[np.intp]) -> None:
    """Ribs on the flat voxel indices `near`, those close to the cavity's wall."""
    x, y = canvas.x.ravel()[near], canvas.y.ravel()[near]
    z = np.broadcast_to(canvas.z, canvas.x.shape).ravel()[near]
    depth = cavity.ravel()[near] - 4.5
    angle = np.arctan2(np.abs(x) / 120, y / 80)
    level = (z + 0.03 * x - np.interp(angle, _RIB_ANGLE, _RIB_DROP) - 6) / RIB_PITCH_MM
    number = np.clip(np.round(level), 0, 11)
    height = (level - number) * RIB_PITCH_MM
    distance = (np.sqrt((height / 6.2) ** 2 + (depth / 3.9) ** 2) - 1) * 3.9
    distance = np.maximum(distance, (angle - _RIB_END[number.astype(np.intp)]) * 90).astype(np.float32)
    cartilage = angle > 2.42
    flat = canvas.hu.ravel()
    values = flat[near]
    for inset, bone, soft in ((0.0, CORTEX_HU, 100.0), (1.6, 230.0, 85.0)):
        share = canvas.coverage(distance + np.float32(inset))
        values = values + share * (np.where(cartilage, soft, bone).astype(np.float32) - values)
        if canvas.organs is not None:
            canvas.organs.ravel()[near[share > 0.5]] = Organ.BONE
    flat[near] = values


def paint_shoulders(canvas: Canvas) -> None:
    """Clavicles, scapulae and the muscles on them."""
    for side in (-1.0, 1.0):
        nodes = [(side * 20, -48, 48), (side * 60, -42, 28), (side * 110, -12, 10), (side * 140, 0, 2)]
        clavicle = Capsules.chain(nodes, [8, 5.5, 5.5, 6.5])
        canvas.part = Organ.BONE
        canvas.tubes(clavicle, CORTEX_HU)
        canvas.tubes(clavicle.thinner(1.8), 260.0)
        window = canvas.window(
            np.array([min(side * 60, side * 165), 10.0, 0.0]), np.array([max(side * 60, side * 165), 115.0, 165.0])
        )
        if window is None:
            continue
        z, y, x = canvas.z[window[0]], canvas.y[window], canvas.x[window]
        reach = np.clip((165 - z) / 60, 0, 1)
        inner = np.stack([side * (76 + 0 * z), 84 + 0 * z], 0)
        outer = np.stack([side * (76 + 58 * reach), 84 - 46 * reach], 0)
        dx, dy = outer[0] - inner[0], outer[1] - inner[1]
        t = np.clip(((x - inner[0]) * dx + (y - inner[1]) * dy) / (dx * dx + dy * dy + 1), 0, 1)
        bow = 5 * np.sin(np.pi * t)
        blade = np.sqrt((x - inner[0] - t * dx - side * bow * 0.5) ** 2 + (y - inner[1] - t * dy - bow) ** 2)
        ends = np.maximum(20 - z, z - 160)
        canvas.part = Organ.MUSCLE
        canvas.paint(window, np.maximum(blade - 10, ends - 4), 56.0)
        canvas.part = Organ.BONE
        thick = 2.2 + 3.5 * t * t
        _paint_bone(canvas, window, np.maximum(blade - thick, ends), 1.6, 250.0)
        canvas.ellipsoid((side * 150, 6, 18), (24, 24, 24), CORTEX_HU)
        canvas.ellipsoid((side * 150, 6, 18), (22, 22, 22), 260.0)


def paint_pelvic_bones(canvas: Canvas) -> None:
    """Iliac wings, sacrum, hip joints, pubis and ischium."""
    _paint_sacrum(canvas)
    canvas.part = Organ.BONE
    for side in (-1.0, 1.0):
        _paint_ilium(canvas, side)
        head = (side * 90.0, -4.0, 576.0)
        canvas.ellipsoid((head[0] - side * 4, head[1], head[2]), (35, 34, 34), CORTEX_HU)
        canvas.ellipsoid((head[0] - side * 4, head[1], head[2]), (33, 32, 32), 260.0)
        canvas.ellipsoid(head, (27.5, 27.5, 27.5), 60.0)
        shaft = [
            head,
            (side * 118, 2, 600),
            (side * 134, 10, 612),
            (side * 136, 8, 680),
        ]
        canvas.tubes(Capsules.chain(shaft, [14, 14, 20, 16]), CORTEX_HU)
        canvas.tubes(Capsules.chain(shaft, [12, 12, 18, 10]), 190.0)
        canvas.ellipsoid(head, (25, 25, 25), CORTEX_HU)
        canvas.ellipsoid(head, (23.4, 23.4, 23.4), 290.0)
        for nodes, radii in (
            ([(side * 68, -30, 582), (side * 40, -54, 596), (side * 10, -62, 606)], [12.0, 8.0, 11.0]),
            ([(side * 10, -60, 612), (side * 34, -40, 634), (side * 54, 6, 648)], [9.0, 6.0, 8.0]),
            ([(side * 72, 26, 590), (side * 66, 32, 620), (side * 56, 20, 650)], [15.0, 13.0, 14.0]),
        ):
            branch = Capsules.chain(nodes, radii)
            canvas.tubes(branch, CORTEX_HU)
            canvas.tubes(branch.thinner(2.2), 220.0)


def _paint_sacrum(canvas: Canvas) -> None:
    window = canvas.window(np.array([-62.0, 0.0, 450.0]), np.array([62.0, 115.0, 600.0]))
    if window is None:
        return
    z, y, x = canvas.z[window[0]], canvas.y[window], canvas.x[window]
    centre = spine_centre(z) + 4
    half = np.interp(z, [450, 470, 510, 560, 595], [40, 54, 46, 24, 8]).astype(np.float32)
    deep = np.interp(z, [450, 520, 595], [20, 16, 7]).astype(np.float32)
    dy = y - centre - 0.0035 * x * x
    sacrum = (np.sqrt(np.sqrt((x / half) ** 4 + (dy / deep) ** 4 + 0.6 * (x / half * dy / deep) ** 2)) - 1) * deep
    sacrum = np.maximum(sacrum, np.maximum(452 - z, z - 592))
    canvas.part = Organ.BONE
    _paint_bone(canvas, window, sacrum, 1.8, 170 + 20 * canvas.grain[window])
    phase = (z - 470) / 26
    phase = (phase - np.round(phase)) * 26
    hole = np.sqrt((np.abs(x) - 20 - (470 - z) * 0.05) ** 2 + (dy + 2) ** 2 + phase**2) - 5.5
    canvas.paint(window, np.maximum(hole, z - 560), 20.0)
    canvas.part = Organ.SPINAL_CANAL
    canvas.paint(window, np.maximum(np.sqrt((x / 12) ** 2 + ((dy - deep * 0.55) / 5) ** 2) * 5 - 5, z - 560), 10.0)


def _paint_ilium(canvas: Canvas, side: float) -> None:
    """One iliac wing: in each slice a bowed strip from the sacroiliac joint forwards."""
    low, high = sorted((side * 30.0, side * 150.0))
    window = canvas.window(np.array([low, -85.0, 425.0]), np.array([high, 105.0, 575.0]))
    if window is None:
        return
    z, y, x = canvas.z[window[0]], canvas.y[window], canvas.x[window]
    knots = [425, 445, 480, 520, 555, 575]
    strips: dict[str, list[float]] = {
        "bx": [92, 64, 54, 60, 82, 86], "by": [36, 58, 66, 58, 30, 22],
        "fx": [106, 122, 124, 114, 100, 96], "fy": [10, -22, -38, -44, -34, -28],
        "thick": [2.5, 4.5, 6, 7, 13, 15],
    }  # fmt: skip
    path = {name: np.interp(z, knots, values).astype(np.float32) for name, values in strips.items()}
    start_x, end_x = side * path["bx"], side * path["fx"]
    dx, dy = end_x - start_x, path["fy"] - path["by"]
    t = np.clip(((x - start_x) * dx + (y - path["by"]) * dy) / (dx * dx + dy * dy), 0, 1)
    bow = side * (13 * np.sin(np.pi * t) + 5 * np.sin(2 * np.pi * t))
    strip = np.sqrt((x - start_x - t * dx - bow) ** 2 + (y - path["by"] - t * dy - 0.3 * np.abs(bow)) ** 2)
    uneven = path["thick"] * (1 - 0.45 * np.sin(np.pi * t))
    strip = np.maximum(strip - uneven, np.maximum(428 - z, z - 574))
    _paint_bone(canvas, window, strip, 1.9, 230 + 20 * canvas.grain[window])


def rib_point(level: int, angle: float, side: float) -> tuple[float, float, float]:
    """A point (x, y, z) on rib `level` (0 to 11) at `angle` from the spine, for placing lesions."""
    z = 6 + level * RIB_PITCH_MM + float(np.interp(angle, _RIB_ANGLE, _RIB_DROP))
    return side * 116 * float(np.sin(angle)), 74 * float(np.cos(angle)), z
