"""Grey pictures of CT volumes: windowed slices and projections through the whole volume."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.structures import CTVolume, Finding

__all__ = [
    "LUNG",
    "SOFT_TISSUE",
    "WINDOWS",
    "GreyPicture",
    "Window",
    "choose_window",
    "encode_jpeg",
    "jpeg_data_uri",
    "project",
    "stretch",
    "window_of",
    "window_slice",
]

GreyPicture = npt.NDArray[np.uint8]

# Between the HU of lung and of soft tissue; a box that is mostly below it needs the lung window.
_LUNG_BELOW_HU = -300
_QUALITY = 88


@dataclass(frozen=True)
class Window:
    """A display window: ``low_hu`` and below is black, ``high_hu`` and above white."""

    name: str
    low_hu: float
    high_hu: float


LUNG = Window("lung", -1350.0, 150.0)
SOFT_TISSUE = Window("soft tissue", -160.0, 240.0)
WINDOWS = (
    SOFT_TISSUE,
    LUNG,
    Window("bone", -500.0, 1300.0),
    Window("liver", -20.0, 140.0),
    Window("all", -1024.0, 1500.0),
)
"""The presets of a viewer, in the order of their keys."""


def choose_window(volume: CTVolume, finding: Finding) -> Window:
    """The window that shows a finding: lung if the median HU in its box on the key slice is below -300."""
    height, width = volume.shape[1:]
    x1, y1, x2, y2 = finding.key_box
    left, top = int(np.clip(x1, 0, width - 1)), int(np.clip(y1, 0, height - 1))
    right, bottom = max(int(np.ceil(x2)), left + 1), max(int(np.ceil(y2)), top + 1)
    return window_of(volume.array[finding.key_slice, top:bottom, left:right])


def window_of(values_hu: npt.NDArray[Any]) -> Window:
    """The window that shows what has these HU: lung if their median is below -300; soft tissue if there are none."""
    return LUNG if values_hu.size and np.median(values_hu) < _LUNG_BELOW_HU else SOFT_TISSUE


def window_slice(slice_hu: npt.NDArray[Any], window: Window) -> GreyPicture:
    """Turn a slice (H, W) in HU into grey values 0 to 255."""
    scaled = (slice_hu.astype(np.float32) - window.low_hu) * (255.0 / (window.high_hu - window.low_hu))
    grey: GreyPicture = scaled.clip(0, 255).round().astype(np.uint8)
    return grey


def project(volume: CTVolume) -> tuple[GreyPicture, GreyPicture]:
    """Radiograph-like views of a volume: (coronal (Z, X), sagittal (Z, Y)), grey values 0 to 255.

    Each pixel is the mean density along its ray, from air to dense bone; slices are visited one by one, so
    that no copy of the volume is made.
    """
    depth, height, width = volume.shape
    coronal = np.empty((depth, width), dtype=np.float32)
    sagittal = np.empty((depth, height), dtype=np.float32)
    for z, slice_hu in enumerate(volume.array):
        density = slice_hu.clip(-1000, 1000).astype(np.float32)
        coronal[z], sagittal[z] = density.mean(axis=0), density.mean(axis=1)
    return stretch(coronal), stretch(sagittal)


def encode_jpeg(picture: GreyPicture, quality: int) -> bytes:
    """Encode a grey picture (H, W) as JPEG."""
    import cv2

    done, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError(f"a picture of shape {picture.shape} could not be encoded as JPEG")
    return bytes(encoded)


def jpeg_data_uri(picture: GreyPicture) -> str:
    """Encode a grey picture (H, W) as a ``data:`` address that a page can hold."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(picture, _QUALITY)).decode("ascii")


def stretch(picture: npt.NDArray[np.float32]) -> GreyPicture:
    """Spread the values of a picture (H, W) between its 1st and 99.5th percentile over 0 to 255."""
    low, high = np.percentile(picture, [1, 99.5])
    scaled = (picture - low) * (255.0 / max(high - low, 1e-3))
    grey: GreyPicture = scaled.clip(0, 255).round().astype(np.uint8)
    return grey
