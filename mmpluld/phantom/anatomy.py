"""Painting the torso: envelope, chest, abdomen, pelvis. Distances and sizes are standard-torso millimetres.

Axes: x to the patient's left, y to the back, z downwards; (0, 0, 0) lies between the shoulders in mid depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpluld.phantom.bones import paint_pelvic_bones, paint_rib_cage, paint_shoulders, paint_spine
from mmpluld.phantom.canvas import Array, Canvas, Capsules
from mmpluld.phantom.organs import Organ
from mmpluld.phantom.patient import Patient

__all__ = [
    "body_distance",
    "cavity_distance",
    "depth_range",
    "diaphragm_height",
    "liver_distance",
    "lung_distance",
    "paint_torso",
]

# Columns: z, half width, depth in front, depth behind.
_MUSCLE = np.array([
    (-40, 165, 62, 68), (0, 172, 68, 76), (40, 158, 80, 86), (100, 148, 93, 92), (180, 143, 100, 93),
    (260, 138, 97, 90), (340, 130, 88, 86), (420, 130, 82, 84), (480, 142, 80, 90), (540, 152, 80, 96),
    (600, 150, 78, 94), (680, 146, 76, 90),
], np.float32)  # fmt: skip
_CAVITY = np.array([
    (-40, 30, 25, 35), (0, 38, 32, 45), (30, 80, 52, 62), (60, 98, 66, 70), (100, 112, 78, 74), (180, 122, 86, 75),
    (260, 120, 84, 70), (340, 110, 76, 58), (420, 106, 70, 52), (480, 98, 66, 56), (540, 84, 62, 60), (600, 68, 55, 55),
    (640, 50, 45, 45), (680, 40, 40, 40),
], np.float32)  # fmt: skip


def _squircle(z: Array, y: Array, x: Array, table: Array, grow: tuple[float, float, float]) -> Array:
    """Signed distance to a rounded-rectangle cross-section whose half axes follow `table` along z."""
    front, half, back = (
        (np.interp(z, table[:, 0], table[:, k]) + more).astype(np.float32)
        for k, more in zip((2, 1, 3), grow, strict=True)
    )
    u = x / half
    u *= u
    v = np.where(y < 0, y * (1 / front), y * (1 / back))
    v *= v
    f: Array = u * v
    f *= np.float32(1.1)
    f += u * u
    f += v * v
    np.sqrt(f, out=f)
    np.sqrt(f, out=f)
    f += np.float32(1e-3)
    u = x * x
    u += y * y
    np.sqrt(u, out=u)
    return u - u / f


def body_distance(z: Array, y: Array, x: Array, fat_mm: tuple[float, float, float]) -> Array:
    """Signed distance to the skin; `fat_mm` lies outside the muscles (front, side, back)."""
    return _squircle(z, y, x, _MUSCLE, fat_mm)


def depth_range(patient: Patient) -> tuple[float, float]:
    """Least and largest depth y of the patient: of the skin, and 10 mm more, as bones and muscles may come close."""
    front, _, back = patient.fat_mm
    return -float(_MUSCLE[:, 2].max()) - front - 10, float(_MUSCLE[:, 3].max()) + back + 10


def cavity_distance(z: Array, y: Array, x: Array) -> Array:
    """Signed distance to the inner wall of chest and abdomen."""
    return _squircle(z, y, x, _CAVITY, (0.0, 0.0, 0.0))


def diaphragm_height(y: Array, x: Array) -> Array:
    """Height z of the diaphragm at (x, y): right dome, left dome, central tendon."""
    yy = (y + 18) ** 2
    right = 204 + 0.018 * (x + 62) ** 2 + 0.0105 * yy
    left = 216 + 0.018 * (x - 70) ** 2 + 0.0105 * yy
    centre = 232 + 0.02 * x * x + 0.012 * yy
    return np.asarray(np.minimum(np.minimum(right, left), centre), np.float32)


def liver_distance(patient: Patient, z: Array, y: Array, x: Array, lumps: Array | float = 0.0) -> Array:
    """Signed distance to the liver before it is clipped by diaphragm and abdominal wall."""
    cx, cy, cz = patient.moved("liver", -72.0, 4.0, 282.0)
    a, b, c = patient.sized("liver", 72.0, 86.0, 98.0)
    right = (np.sqrt(((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2) - 1) * 70
    lx, ly, lz = patient.moved("liver", -2.0, -44.0, 262.0)
    tilt = z - lz - 0.25 * (x - lx)
    left = (np.sqrt(((x - lx) / (70 * patient.grow["liver"])) ** 2 + ((y - ly) / 42) ** 2 + (tilt / 48) ** 2) - 1) * 42
    blend = np.clip(0.5 + (left - right) / 24, 0, 1)
    smooth = left + (right - left) * blend - 12 * blend * (1 - blend)
    # The under surface: hollow towards kidney, gallbladder and spine.
    hollow = 20 - np.sqrt((x - cx - 62) ** 2 + (y - cy - 62) ** 2 + 0.05 * (z - cz) ** 2) + 22
    return np.asarray(np.maximum(smooth, hollow) + 2.5 * lumps, np.float32)


def lung_distance(patient: Patient, z: Array, y: Array, x: Array, cavity: Array, dome: Array) -> Array:
    """Signed distance to the lungs: the chest cavity above the diaphragm, without mediastinum and heart."""
    width = np.interp(y, [-100, -80, -55, -20, 10, 40, 70, 90], [20, 8, 9, 26, 30, 24, 23, 26]).astype(np.float32)
    width += 8 * np.clip((z - 150) / 60, 0, 1)
    middle = 3 + 4 * np.clip((z - 100) / 60, 0, 1)
    lung = np.maximum(cavity + 2.5, z - dome)
    lung = np.maximum(lung, width - np.abs(x - middle))
    lung = np.maximum(lung, (18 - z) + 0.004 * (np.abs(x) - 52) ** 2)
    hx, hy, hz = patient.moved("heart", 24, -30, 188)
    a, b, c = patient.sized("heart", 62, 47, 60)
    heart = (np.sqrt(((x - hx) / a) ** 2 + ((y - hy) / b) ** 2 + ((z - hz) / c) ** 2) - 1) * 47 - 3
    return np.asarray(np.maximum(lung, -heart), np.float32)


def paint_torso(canvas: Canvas, patient: Patient) -> None:
    """Paint the whole patient, from the skin inwards."""
    z_low, z_high = float(canvas.z_mm[0]), float(canvas.z_mm[-1])
    cavity = cavity_distance(canvas.z, canvas.y, canvas.x)
    dome = diaphragm_height(canvas.y, canvas.x)
    _paint_envelope(canvas, patient, cavity)
    if z_low < 330:
        _paint_lungs(canvas, patient, cavity, dome)
        _paint_mediastinum(canvas, patient)
    if z_high > 195:
        _paint_upper_abdomen(canvas, patient, cavity, dome)
        _paint_bowel(canvas, patient, cavity, dome)
        _paint_retroperitoneum(canvas, patient)
    _paint_great_vessels(canvas, patient)
    paint_spine(canvas)
    paint_rib_cage(canvas, cavity)
    if z_low < 170:
        paint_shoulders(canvas)
    if z_high > 400:
        _paint_pelvic_organs(canvas, patient)
        paint_pelvic_bones(canvas)
    canvas.part = None  # look-alikes of lesions belong to what they lie in, as lesions do
    for index, _ in canvas.windows(*patient.benign_bounds):
        item = patient.benign[index]
        canvas.ellipsoid(item.centre, item.radii, item.hu, turn=item.turn)
        if item.core_hu:
            x, y, z = item.radii
            canvas.ellipsoid(item.centre, (0.55 * x, 0.55 * y, 0.6 * z), item.core_hu, turn=item.turn)


def _paint_envelope(canvas: Canvas, patient: Patient, cavity: Array) -> None:
    """Skin, subcutaneous fat, muscle wall with fat planes, visceral fat."""
    skin = body_distance(canvas.z, canvas.y, canvas.x, patient.fat_mm)
    canvas.part = Organ.FAT
    canvas.paint(canvas.full, skin, 20.0)
    canvas.paint(canvas.full, skin + 2.2, -104 + 5 * canvas.grain)
    muscle = body_distance(canvas.z, canvas.y, canvas.x, (0.0, 0.0, 0.0))
    muscle += 1.2 * canvas.lumps
    canvas.part = Organ.MUSCLE
    canvas.paint(canvas.full, muscle, 56 + 5 * canvas.grain)
    # Fat between the muscle layers: two planes that follow the wall, broken up by the lumps.
    for depth, width in ((8.5, 0.9), (15.0, 0.7)):
        plane = np.abs(cavity - depth - 1.5 * canvas.lumps) - width
        canvas.paint(canvas.full, np.maximum(plane, np.maximum(muscle + 3, canvas.z - 545)), -55.0)
    septa = 1.5 - canvas.grain - np.clip((cavity - 14) / 40, 0, 0.45)
    canvas.paint(canvas.full, np.maximum(septa * 3.0, np.maximum(muscle + 3, 12 - cavity)), -35.0)
    for side in (-1.0, 1.0):
        for y, x, ry, rx in ((66, 30, 17, 25), (70, 62, 11, 16)):
            canvas.ellipsoid((side * x, y, 300), (rx, ry, 330), 54.0, turn=side * 0.25, lumpy_mm=1.0)
    canvas.part = Organ.FAT
    canvas.paint(canvas.full, cavity + 2.0, -100 + 7 * canvas.grain)


def _paint_lungs(canvas: Canvas, patient: Patient, cavity: Array, dome: Array) -> None:
    """Lung parenchyma with dependent density, vessels and bronchi."""
    y, z = canvas.y, canvas.z
    lung = lung_distance(patient, z, y, canvas.x, cavity, dome)
    texture = -865 + 0.35 * (y + 20) + 18 * canvas.grain + 12 * canvas.lumps
    canvas.part = Organ.LUNG
    canvas.paint(canvas.full, lung, texture)
    # Fissures, one pixel thin.
    fissure = np.abs(z - 150 - 0.9 * (0 - y)) - 0.35
    canvas.paint(canvas.full, np.maximum(fissure, lung + 2), -600.0)
    canvas.part = Organ.VESSEL
    with canvas.within(canvas.full, lung + 1.5):
        for name in ("lung_r", "lung_l"):
            canvas.tubes(patient.tissue_vessels[name], 60.0)


def _paint_mediastinum(canvas: Canvas, patient: Patient) -> None:
    """Heart, airways, oesophagus, thymic fat and pulmonary arteries."""
    hu = patient.hu
    centre = patient.moved("heart", 24, -30, 188)
    blood = (hu["heart"] + hu["artery"]) / 2
    canvas.part = Organ.HEART
    if canvas.ellipsoid(
        centre, patient.sized("heart", 58, 43, 56), 95.0 if patient.phase != "native" else 45.0, turn=0.5
    ):
        for dx, dy, dz, radii, value in (
            (14.0, 2.0, 8.0, (27, 21, 38), blood),
            (-22.0, -8.0, 4.0, (21, 20, 36), hu["heart"]),
            (0.0, 20.0, -18.0, (32, 15, 22), blood),
            (-30.0, 14.0, -12.0, (19, 18, 26), hu["heart"] * 0.9),
        ):
            place = (centre[0] + dx, centre[1] + dy, centre[2] + dz)
            canvas.ellipsoid(place, patient.sized("heart", *radii), value, turn=0.5, lumpy_mm=1.0)
    arteries = [
        ([(12, -28, 150), (8, -24, 125), (14, -5, 112), (34, 4, 116)], 13.0),
        ([(10, -22, 122), (-18, -2, 120), (-38, 6, 124)], 10.0),
        ([(-22, -22, 60), (-24, -24, 100), (-24, -18, 150)], 9.0),
        ([(-10, -24, 42), (-22, -24, 66)], 6.5),
        ([(40, -20, 30), (10, -30, 48), (-18, -26, 62)], 6.0),
    ]
    canvas.part = Organ.VESSEL
    for (nodes, radius), value in zip(arteries, [hu["heart"]] * 2 + [hu["vein"] * 1.3] * 3, strict=True):
        canvas.tubes(Capsules.chain(nodes, radius), value)
    oesophagus = [(4, 22, 0), (6, 24, 80), (6, 20, 150), (12, 10, 215), (22, 2, 242)]
    canvas.part = Organ.BOWEL
    canvas.tubes(Capsules.chain(oesophagus, 7.5), 48.0)
    canvas.tubes(Capsules.chain([(5, 23, 60), (7, 23, 95)], 2.2), -700.0)
    canvas.part = Organ.AIRWAY
    for path, radius in (
        ([(0, 4, -20), (1, 8, 50), (2, 10, 100)], 9.0),
        ([(2, 10, 100), (-16, 12, 116), (-34, 12, 130)], 6.5),
        ([(2, 10, 100), (20, 14, 120), (40, 16, 132)], 6.0),
    ):
        canvas.tubes(Capsules.chain(path, radius + 1.5), 35.0)
        canvas.tubes(Capsules.chain(path, radius), -985.0)
    for side in (-1.0, 1.0):
        for dy, dz in ((-18, 22), (10, 45), (28, 30)):
            branch = [(side * 36, 13, 130), (side * 52, 13 + dy * 0.6, 130 + dz * 0.6), (side * 66, 13 + dy, 130 + dz)]
            canvas.tubes(Capsules.chain(branch, 3.6), -300.0)
            canvas.tubes(Capsules.chain(branch, 2.4), -960.0)


def _paint_upper_abdomen(canvas: Canvas, patient: Patient, cavity: Array, dome: Array) -> None:
    """Diaphragm, liver with vessels and gallbladder, spleen, stomach, pancreas."""
    hu = patient.hu
    z, y, x = canvas.z, canvas.y, canvas.x
    below = np.maximum(cavity, dome - z)
    canvas.part = Organ.MUSCLE
    canvas.paint(canvas.full, np.maximum(below, np.maximum(np.abs(dome - z + 2) - 2.2, -35.0)), 55.0)
    inside = np.maximum(cavity + 3.0, dome + 2.5 - z)
    spleen = canvas.ellipsoid(
        patient.moved("spleen", 88, 30, 268), patient.sized("spleen", 34, 46, 52), None, turn=0.4, lumpy_mm=2.0
    )
    if spleen is not None:
        window, distance = spleen
        canvas.part = Organ.SPLEEN
        canvas.paint(window, np.maximum(distance, inside[window]), hu["spleen"] + 3 * canvas.grain[window])
    _paint_stomach(canvas, patient)
    block = canvas.window((-155.0, -95.0, 180.0), (80.0, 100.0, 395.0))
    if block is not None:
        liver = liver_distance(patient, z[block[0]], y[block], x[block], canvas.lumps[block])
        liver = np.maximum(liver, inside[block])
        canvas.part = Organ.LIVER
        canvas.paint(block, liver, hu["liver"] + 3 * canvas.grain[block])
        canvas.part = Organ.VESSEL
        with canvas.within(block, liver + 3):
            for name, key in (("hepatic", "vein"), ("portal", "portal")):
                canvas.tubes(patient.tissue_vessels[name], hu[key])
    canvas.part = Organ.GALLBLADDER
    canvas.ellipsoid(patient.moved("gallbladder", -46, -40, 326), patient.sized("gallbladder", 15, 17, 27), 45.0)
    canvas.ellipsoid(patient.moved("gallbladder", -46, -40, 326), patient.sized("gallbladder", 13.5, 15.5, 25.5), 9.0)
    nodes = [(-32, -2, 338), (-24, -10, 322), (-4, -16, 312), (24, -10, 302), (52, 4, 292), (74, 16, 282)]
    points = [patient.moved("pancreas", *node) for node in nodes]
    canvas.part = Organ.PANCREAS
    canvas.tubes(Capsules.chain(points, [13, 14, 9.5, 9.5, 10, 8]), hu["wall"] + 18)


def _paint_stomach(canvas: Canvas, patient: Patient) -> None:
    """Stomach from fundus to antrum, then the duodenum; an air cap in front when supine."""
    nodes = [
        (62, 14, 240),
        (66, 2, 262),
        (62, -24, 288),
        (46, -46, 308),
        (18, -52, 318),
        (-12, -40, 320),
        (-30, -22, 322),
    ]
    points = [patient.moved("stomach", *node) for node in nodes]
    stomach = Capsules.chain(points, np.array([29, 32, 28, 23, 18, 13, 11]) * patient.grow["stomach"])
    canvas.part = Organ.BOWEL
    content = 30.0 if patient.grow["stomach"] < 0.95 else 260.0
    canvas.hollow(stomach, 4.0, patient.hu["wall"], content, points[3][1] + 14.0)
    loop = [(-34, -14, 322), (-44, 0, 335), (-42, 8, 362), (-20, 10, 376), (10, 2, 374), (36, -8, 362)]
    canvas.hollow(Capsules.chain(loop, 11.0), 3.5, patient.hu["wall"] + 5, 25.0)


def _paint_bowel(canvas: Canvas, patient: Patient, cavity: Array, dome: Array) -> None:
    """Small bowel and colon, kept inside the abdominal wall."""
    if float(canvas.z_mm[-1]) < 280:
        return
    with canvas.within(canvas.full, np.maximum(cavity + 4, dome + 4 - canvas.z)):
        canvas.part = Organ.VESSEL
        canvas.tubes(patient.tissue_vessels["mesenteric"], patient.hu["portal"])
        canvas.part = Organ.BOWEL
        for piece in patient.bowel:
            canvas.hollow(piece.capsules, piece.wall_mm, piece.wall_value, piece.value, piece.air_y)


def _paint_retroperitoneum(canvas: Canvas, patient: Patient) -> None:
    """Kidneys with cortex, medulla and sinus; adrenals; psoas."""
    hu = patient.hu
    for side, name, z in ((1.0, "kidney_l", 336.0), (-1.0, "kidney_r", 350.0)):
        psoas = [
            (side * 22, 34, 330),
            (side * 34, 36, 390),
            (side * 44, 32, 450),
            (side * 58, 10, 510),
            (side * 78, -18, 580),
        ]
        canvas.part = Organ.MUSCLE
        canvas.tubes(Capsules.chain(psoas, [7, 16, 20, 18, 14]), 58.0)
        x, y, zc = patient.moved(name, side * 60, 32, z)
        radii = patient.sized(name, 25, 29, 54)
        canvas.part = Organ.FAT
        canvas.ellipsoid((x, y, zc), tuple(r + 1.0 for r in radii), -40.0, turn=-side * 0.6)  # type: ignore[arg-type]
        canvas.part = Organ.KIDNEY
        canvas.ellipsoid((x, y, zc), radii, hu["cortex"], turn=-side * 0.6, lumpy_mm=1.0)
        inner = canvas.ellipsoid((x, y, zc), patient.sized(name, 19, 22, 47), None, turn=-side * 0.6)
        if inner is not None and abs(hu["cortex"] - hu["medulla"]) > 8:
            window, distance = inner
            around = np.arctan2(canvas.y[window] - y, canvas.x[window] - x)
            columns = np.cos(6 * around + canvas.z[window[0]] / 9) * 4 - 1.5  # cortex between the pyramids
            canvas.paint(window, np.maximum(distance, columns), hu["medulla"])
        canvas.ellipsoid((x - side * 9, y - 6, zc), (13, 9, 27), -70.0, turn=-side * 0.6, lumpy_mm=2.0)
        canvas.ellipsoid((x - side * 12, y - 8, zc + 3), (9, 5, 12), 30.0, turn=-side * 0.6)
        canvas.part = Organ.VESSEL
        canvas.tubes(Capsules.chain([(side * 8, 8, zc - 6), (x - side * 22, y - 14, zc)], 4.5), hu["vein"])
        adrenal = [(x - side * 22, 18, zc - 58), (x - side * 20, 26, zc - 48), (x - side * 15, 33, zc - 44)]
        canvas.part = Organ.ADRENAL
        canvas.tubes(Capsules.chain(adrenal, [2.0, 3.0, 2.0]), 60.0)


def _paint_great_vessels(canvas: Canvas, patient: Patient) -> None:
    """Aorta from arch to femoral arteries, vena cava to femoral veins, mesenteric vessels."""
    hu = patient.hu
    dx = patient.shift["aorta"][0]
    canvas.part = Organ.VESSEL

    def add(nodes: Sequence[tuple[float, float, float]], radii: list[float], key: str) -> None:
        canvas.tubes(Capsules.chain(nodes, radii), hu[key])

    arch = [(-14, -26, 150), (-14, -24, 112), (-6, -16, 90), (10, 2, 82), (22, 18, 90), (24, 24, 120)]
    add(arch, [15, 15, 13.5, 13, 12.5, 12], "artery")
    descending = [
        (24, 24, 120),
        (22, 24, 180),
        (16 + dx, 18, 240),
        (8 + dx, 8, 300),
        (8 + dx, 4, 360),
        (4 + dx, 8, 420),
    ]
    add(descending, [12, 11.5, 11.5, 10, 9, 8.5], "artery")
    for x in (-12.0, 2.0, 16.0):
        add([(x * 0.5, -4, 84), (x * 1.3, -6, 50), (x * 1.8, -2, 0)], [5.0, 4.5, 4.0], "artery")
    for side in (-1.0, 1.0):
        add(
            [(4 + dx, 8, 420), (side * 24, 14, 455), (side * 52, 0, 500), (side * 72, -34, 560), (side * 78, -48, 640)],
            [6.5, 6, 5.5, 5, 4.5],
            "artery",
        )
        add(
            [
                (-16, 12, 425),
                (side * 26 - 4, 22, 460),
                (side * 54, 10, 505),
                (side * 66, -26, 562),
                (side * 68, -42, 640),
            ],
            [8, 7.5, 7, 6, 5.5],
            "vein",
        )
        add([(side * 26, 20, 460), (side * 44, 36, 495), (side * 40, 40, 540)], [4.5, 3.5, 2.5], "artery")
    add([(-24, -8, 205), (-20, 8, 235), (-20, 10, 300), (-18, 10, 360), (-16, 12, 425)], [13, 12, 12, 11, 10], "vein")
    add([(6 + dx, -2, 322), (4, -16, 350), (6, -22, 420), (20, -25, 470)], [4, 3.6, 3, 2], "artery")
    add([(-14, 2, 300), (-8, -12, 318), (-6, -20, 350), (-4, -24, 420), (-20, -25, 470)], [7, 6.5, 5.5, 4, 2], "portal")
    add([(-8, -12, 316), (30, -2, 304), (70, 20, 280)], [5, 4, 3.5], "portal")


def _paint_pelvic_organs(canvas: Canvas, patient: Patient) -> None:
    """Gluteal muscles, bladder, uterus or prostate, rectal wall."""
    canvas.part = Organ.MUSCLE
    for side in (-1.0, 1.0):
        canvas.ellipsoid((side * 82, 66, 560), (54, 25, 88), 52.0, turn=-side * 0.45, lumpy_mm=1.5)
        canvas.ellipsoid((side * 118, 18, 530), (19, 48, 75), 55.0, turn=side * 0.15, lumpy_mm=2.0)
        canvas.ellipsoid((side * 92, -44, 610), (30, 24, 70), 52.0, lumpy_mm=3.0)
        canvas.ellipsoid((side * 62, 14, 585), (8, 32, 34), 52.0, turn=side * 0.3)
    centre = patient.moved("bladder", 0, -26, 568)
    canvas.part = Organ.BLADDER
    canvas.ellipsoid(centre, patient.sized("bladder", 42, 32, 34), 38.0)
    canvas.ellipsoid(centre, patient.sized("bladder", 39, 29, 31), 7.0)
    canvas.part = Organ.GENITAL
    if patient.sex == "F":
        canvas.ellipsoid((4, 8, 545), (27, 19, 30), 80.0 if patient.phase != "native" else 48.0, lumpy_mm=1.5)
        canvas.ellipsoid((4, 8, 545), (9, 4, 17), 45.0)
    else:
        canvas.ellipsoid((0, 4, 606), (22, 17, 20), 62.0)
        for side in (-1.0, 1.0):
            canvas.ellipsoid((side * 16, 12, 585), (17, 6, 7), 42.0, turn=side * 0.3)
