"""Damaged PNG slices are refused by name; image libraries would hand out zeros."""

from __future__ import annotations

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.io.faults import captured_stderr
from mmpluld.io.slice_sources import PNGSliceSource, read_png16


@pytest.fixture
def png(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "109.png"
    cv2.imwrite(str(path), rng.integers(31000, 34000, (64, 64)).astype(np.uint16))
    return path


def test_cut_off_at_any_length(png):
    data = png.read_bytes()
    for length in [0, 7, 8, 20, 32, 33, 34, 100, len(data) // 2, len(data) - 12, len(data) - 1]:
        png.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"109\.png: (PNG is cut off|not a PNG file, or cut off|is empty)"):
            read_png16(png)


def test_the_image_library_alone_would_not_notice(png):
    data = png.read_bytes()
    png.write_bytes(data[: len(data) // 2])
    silent = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)
    assert silent is None or silent.dtype == np.uint16


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_flipped_byte(png, fraction):
    data = bytearray(png.read_bytes())
    data[int(33 + fraction * (len(data) - 50))] ^= 0xFF
    png.write_bytes(data)
    with pytest.raises(InputError, match=r"109\.png: (damaged PNG|PNG is cut off)"):
        read_png16(png)


def test_header_that_lies_about_the_size(png):
    data = bytearray(png.read_bytes())
    data[19] = 65
    png.write_bytes(data)
    with pytest.raises(InputError, match=r"109\.png: damaged PNG, wrong check sum at byte 8"):
        read_png16(png)


def test_another_kind_of_file(png):
    png.write_bytes(b"GIF89a" + bytes(100))
    with pytest.raises(InputError, match=r"109\.png: not a PNG file"):
        read_png16(png)


def test_missing_file(tmp_path):
    with pytest.raises(
        InputError, match=r"1\.png: cannot be read \(no such file\); give a slice, or another data root"
    ):
        read_png16(tmp_path / "1.png")


def test_no_pixels_at_all(tmp_path, png):
    data = png.read_bytes()
    end = data[-12:]
    png.write_bytes(data[:33] + end)
    with pytest.raises(InputError, match=r"109\.png: damaged PNG, its pixels do not decode"):
        read_png16(png)


def _png(width, height, rows, filters=0, cut=None, interlaced=0):
    """A 16-bit PNG whose header says ``height`` rows and whose pixels are ``rows``; its check sums are right."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress((bytes([filters]) + struct.pack(">H", 32768) * width) * rows)[:cut]
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((6, 4, 3), "its pixels do not decode"),
        ((6, 4, 5), "it holds more pixels than its header says"),
        ((6, 4, 4, 5), "its pixels do not decode"),
        ((6, 4, 4, 0, -4), "its pixels do not decode"),
        ((6, 4, 4, 0, None, 1), "its pixels do not decode"),
        ((9000, 4, 4), "PNG of 9000 x 4 pixels; allowed are 8192 x 8192 at most"),
        ((40000, 40000, 1), "PNG of 40000 x 40000 pixels"),
        ((0, 4, 4), "PNG of 0 x 4 pixels"),
    ],
)
def test_header_and_pixels_of_two_sizes(tmp_path, capfd, size, message):
    (tmp_path / "1.png").write_bytes(_png(6, 4, 4))
    assert read_png16(tmp_path / "1.png").shape == (4, 6)
    (tmp_path / "1.png").write_bytes(_png(*size))
    with pytest.raises(InputError, match=rf"1\.png: .*{message}"):
        read_png16(tmp_path / "1.png")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("height", range(1, 10))
def test_interlaced(tmp_path, height):
    """Each pass of Adam7 is an image with a filter for each of its rows."""
    starts = ((0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0))
    steps = ((8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1))
    image = (np.arange(height * 5).reshape(height, 5) + 32768).astype(">u2")
    parts = [image[y::dy, x::dx] for (y, x), (dy, dx) in zip(starts, steps, strict=True)]
    pixels = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    data = _png(5, height, 0, interlaced=1)
    body = zlib.compress(pixels)
    chunk = b"IDAT" + body
    data = data[:33] + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[-12:]
    (tmp_path / "1.png").write_bytes(data)
    assert read_png16(tmp_path / "1.png").tolist() == (image.astype(int) - 32768).tolist()


def test_nothing_is_locked_while_a_slice_is_decoded(png):
    """Another thread may hold the lock of standard error, as for a file that ITK reads."""
    with captured_stderr(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(read_png16, png).result(timeout=30).shape == (64, 64)


def test_names_of_slices(tmp_path):
    for names, message in (
        (("1", "001"), "001.png and 1.png are both slice 1"),
        (("9" * 30,), "has no number of a slice"),
    ):
        folder = tmp_path / names[0]
        folder.mkdir()
        for name in names:
            (folder / f"{name}.png").write_bytes(_png(6, 4, 4))
        with pytest.raises(InputError, match=message):
            PNGSliceSource(folder, (1, 1, 1))


def test_a_pipe_among_the_slices(tmp_path):
    os.mkfifo(tmp_path / "1.png")
    source = PNGSliceSource(tmp_path, (1, 1, 1))
    for read in (lambda: source.shape_yx, lambda: source.read(1)):
        with pytest.raises(InputError, match=r"1\.png: is a named pipe"):
            read()
