"""Helpers that tests of several parts share."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings

# A test is never judged by its time: on a busy machine an example can take any.
settings.register_profile("same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
# `make test-all` draws other examples each time.
settings.register_profile("search", settings.get_profile("same"), derandomize=False)
settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders whose files take long, so that no process is left with one when the others are done."""
    items.sort(key=lambda item: "unit" in item.path.relative_to(Path(__file__).parent).parts)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what the imports made out of the garbage collector's walk: mmengine calls it for every dataset."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device on this machine")


@pytest.fixture
def full_precision() -> Iterator[None]:
    """float32 on a GPU with all its digits, as on a CPU; cuDNN's convolutions round their inputs to TF32 otherwise."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans and annotations; tests that need it are skipped without it."""
    folder = os.environ.get("MMPLULD_TEST_DATA")
    if not folder:
        pytest.skip("set MMPLULD_TEST_DATA to the folder with the real data to run this test")
    return Path(folder)


@pytest.fixture(scope="module")
def mmpluld_scope() -> Iterator[None]:
    """What ``default_scope = 'mmpluld'`` in a config does: mmdet's code finds this package's modules."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmpluld"):
        yield


@pytest.fixture(scope="session")
def write_dicom_series() -> Callable[..., list[Path]]:
    """Function that writes an (i, j, k) int array in HU as single-slice CT files and returns them in k order."""
    return _write_dicom_series


def _write_dicom_series(
    folder: Path,
    array_ijk: np.ndarray,
    affine_lps: np.ndarray,
    series: str = "1.2.3",
    prefix: str = "IM",
    intercept: int = -1024,
    **tags: Any,
) -> list[Path]:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
    directions = affine_lps[:3, :3] / spacing
    files = []
    for k in range(array_ijk.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{k + 1}"
        file = folder / f"{prefix}{(7 * k) % 101:04d}"  # names that do not follow the slice order
        dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.SeriesInstanceUID = series
        dataset.Modality = "CT"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.Columns, dataset.Rows = array_ijk.shape[:2]
        dataset.PixelSpacing = [_number(spacing[1]), _number(spacing[0])]
        dataset.SliceThickness = _number(spacing[2])
        dataset.ImageOrientationPatient = [_number(x) for x in (*directions[:, 0], *directions[:, 1])]
        dataset.ImagePositionPatient = [_number(x) for x in (affine_lps @ [0, 0, k, 1])[:3]]
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelRepresentation = 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, intercept
        stored = array_ijk[:, :, k].T.astype(np.int32) - intercept
        dataset.PixelData = np.ascontiguousarray(stored, dtype="<u2").tobytes()
        for name, value in tags.items():
            setattr(dataset, name, value)
        dataset.save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def _number(value: float) -> str:
    """A DICOM decimal string: at most 16 characters."""
    return f"{value:.10f}"[:16]


# ----------------------------------------------------------------- a zoo of toy models and a web server
class Server:
    """Serves files from memory and keeps the ``Range`` header of each request.

    Attributes:
        files: Path -> content.
        ranges: Whether ranges are honoured.
        cut_after: Bytes after which a body is cut, once.
        announce: Whether the length of a body is sent.
        requests: (path, Range header) in order.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.announce = True
        self.cut_after: int | None = None
        self.requests: list[tuple[str, str | None]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.requests.append((self.path, wanted))
                content = server.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
                if start and start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                body = content[start:]
                if server.announce:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if server.cut_after is not None:
                    body, server.cut_after = body[: server.cut_after], None
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.close()


TOY_CONFIG = """test_dataloader = dict(dataset=dict(pipeline=[dict(type="LoadSliceStack", num_slices=3)]))
train_cfg = dict(max_epochs=2)
"""


@pytest.fixture
def make_zoo(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes a zoo with the entries given and returns its root."""

    def make(*entries: dict) -> Path:
        root = tmp_path / "zoo"
        folder = root / "configs/toy"
        folder.mkdir(parents=True, exist_ok=True)
        content = {"Collections": [{"Name": "Toy"}], "Models": list(entries)}
        (folder / "metafile.yml").write_text(yaml.safe_dump(content, sort_keys=False))
        for entry in entries:
            (folder / f"{entry['Name']}.py").write_text(TOY_CONFIG)
        return root

    return make


@pytest.fixture
def toy_zoo(make_zoo: Callable[..., Path], entry: Callable[..., dict], server: Server, monkeypatch) -> Path:
    """Root of a zoo of three models, the package's for this test: weights on the server, in the package, nowhere."""
    web, shipped = bytes(range(256)) * 1000, b"shipped weights"
    entries = [entry("toy_web", web, server.url), entry("toy_shipped", shipped, "checkpoints"), entry("toy_none")]
    root = make_zoo(*entries)
    server.files[entries[0]["Weights"].removeprefix(server.url)] = web
    (root / "checkpoints").mkdir()
    (root / entries[1]["Weights"]).write_bytes(shipped)
    monkeypatch.setattr("mmpluld.zoo.index.zoo_root", lambda: root)
    return root


@pytest.fixture
def entry() -> Callable[..., dict]:
    """Function that makes a valid entry of a metafile, with weights if their content and folder are given."""

    def make(name: str = "toy_3s_phantom", content: bytes | None = None, base: str = "", **changes: object) -> dict:
        made = {
            "Name": name,
            "In Collection": "Toy",
            "Config": f"configs/toy/{name}.py",
            "Metadata": {"Slices": 3, "Epochs": 2},
        }
        if content is not None:
            sha256 = hashlib.sha256(content).hexdigest()
            made["Metadata"].update(SHA256=sha256, Size=len(content))
            made["Weights"] = f"{base}/{name}-{sha256[:8]}.zip"
        return {**made, **changes}

    return make


@pytest.fixture(scope="session")
def validation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Detections in four volumes with two lesions each, and the truth.

    Of every volume one lesion is found with 0.95 and one with 0.5; volume k has k false positives of 0.9 - k / 10.
    """
    from mmpluld.structures import AnnotationSet, Detections, DetectionSet, LesionRecord, VolumeRecord

    folder = tmp_path_factory.mktemp("validation")
    names = "abcd"
    volumes = [
        VolumeRecord(name, name, "1", "1", {"kind": "npy", "path": f"{name}.npy"}, 0, 20, (64, 64), (2.0, 1.0, 1.0))
        for name in names
    ]
    boxes = [(4.0, 4.0, 2.0, 12.0, 12.0, 6.0), (40.0, 40.0, 10.0, 50.0, 50.0, 14.0)]
    lesions = [
        LesionRecord(2 * number + place, name, box, int(box[2]) + 1)
        for number, name in enumerate(names)
        for place, box in enumerate(boxes)
    ]
    AnnotationSet({"name": "toy", "label_scope": "all"}, volumes, lesions).save(folder / "truth.json")
    found = {}
    for number, name in enumerate(names):
        wrong = [(20.0, 4.0 + 8 * k, 2.0, 26.0, 10.0 + 8 * k, 6.0) for k in range(number)]
        scores = [0.95, 0.5, *[0.9 - number / 10] * number]
        found[name] = Detections(np.array([*boxes, *wrong]), np.array(scores))
    DetectionSet(found).save(folder / "found.json")
    return folder / "found.json", folder / "truth.json"


@pytest.fixture
def joined_datasets(tmp_path: Path) -> Callable[..., Any]:
    """Function that joins datasets, given by name with the header of their tags, None without one.

    Each has a patient and a volume of its own with two lesions, whose numbers are 0 and 1 in all; those of dataset k
    have tag k, where there is a header.
    """
    from mmengine.registry import DefaultScope

    from mmpluld.datasets import NamedConcatDataset
    from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

    def join(**tags: dict[str, Any] | None) -> Any:
        for place, (name, header) in enumerate(tags.items()):
            source = {"kind": "png16", "path": name}
            volume = VolumeRecord(f"v-{name}", f"p-{name}", "1", "1", source, 1, 5, (32, 32), (2.0, 1.0, 1.0))
            own = {} if header is None else {"tags": header}
            lesions = [
                LesionRecord(
                    number,
                    volume.id,
                    (4.0, 4.0, number + 1.0, 12.0, 12.0, number + 2.0),
                    key_slice=number + 1,
                    attributes={"tags": [place]} if own else {},
                )
                for number in (0, 1)
            ]
            dataset = {"name": name, "label_scope": "universal-partial", **own}
            AnnotationSet(dataset, [volume], lesions).save(tmp_path / f"{name}.json")
        with DefaultScope.overwrite_default_scope("mmpluld"):
            return NamedConcatDataset(
                datasets={name: {"ann_file": f"{name}.json"} for name in tags},
                shared={"type": "CTLesionDataset", "data_root": str(tmp_path)},
                order=list(tags),
            )

    return join
