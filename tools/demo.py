"""The whole path in minutes on two cores: phantom data, two trainings, FROC, lesion boxes in a phantom and a real CT.

Run by ``make demo``. Every step is an ordinary command of the package, printed before it runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TextIO

import numpy as np
from rich.console import Console

from mmpluld.cli.numbers import seed
from mmpluld.cli.process import Ended, ends_with_signals
from mmpluld.compat.follow import following
from mmpluld.compat.system import usable_cores
from mmpluld.engine.option_values import written
from mmpluld.errors import InputError
from mmpluld.outputs import check_output_folder
from mmpluld.reproduce.twin_data import SETTINGS

CONFIGS = {
    "with the partial-label loss": "pluld-a3d_densenet121-fpn_7s_phantom",
    "without it": "a3d_densenet121-fpn_7s_phantom",
}
# A lung tumour (DICOM, NSCLC-Radiomics, CC BY-NC 3.0) that lies inside a package of the Python index. The package is
# downloaded as a file and unpacked; nothing of it is imported or kept in this project.
CT_PACKAGE = "pycerr==2.5.1"
CT_SHA256 = "5c3e82cc387538c5c38143827314fc2aa743ef886e8518f7f52beff6805c635d"
CT_FOLDER = "cerr/datasets/radiomics_phantom_dicom/pat_1/"
MARK = ".mmpluld-demo"
"""File of a folder that a demo made."""


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line at once, also into a pipe."""
    print(text, file=stream, flush=True)


def start(*arguments: str, log: Path, threads: int) -> subprocess.Popen[bytes]:
    """Start an ``mmpluld`` command with its output in ``log``."""
    say(f"$ mmpluld {' '.join(arguments)}")
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with log.open("w") as stream:
        command = following([sys.executable, "-m", "mmpluld", *arguments])
        return subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)


def standing(log: Path) -> str:
    """How far the command with this log is, as far as the log says it."""
    marks = re.findall(r"Epoch\(train\) +\[(\d+)\].*?eta: (\S+)", log.read_text())
    return f"{log.stem}, epoch {marks[-1][0]}, {marks[-1][1]} left" if marks else log.stem


def finish(processes: dict[Path, subprocess.Popen[bytes]]) -> None:
    """Wait for all; on a failure stop the others and show the end of the log."""
    waiting = dict(processes)
    try:
        with Console(stderr=True).status("") as status:  # shows nothing when the output is not a terminal
            while waiting:
                status.update(" | ".join(map(standing, waiting)))
                time.sleep(0.5)
                for log in [log for log, process in waiting.items() if process.poll() is not None]:
                    if waiting.pop(log).returncode != 0:
                        end = "\n".join(log.read_text().splitlines()[-5:])
                        sys.exit(f"demo: a command failed; the end of {log}:\n{end}")
    finally:
        for process in waiting.values():
            process.terminate()
        for process in waiting.values():
            process.wait()


def run(*arguments: str, log: Path) -> None:
    """Run one ``mmpluld`` command with all cores."""
    finish({log: start(*arguments, log=log, threads=usable_cores())})


def fetch_real_ct(out: Path) -> Path | None:
    """Download and unpack the real CT; None, with one line, when the package index cannot be reached."""
    target = out / "real_ct"
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, CT_PACKAGE, "--dest", str(out)], capture_output=True, text=True)
    wheels = list(out.glob(CT_PACKAGE.replace("==", "-") + "-*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        say(f"real CT skipped: {CT_PACKAGE} could not be downloaded; use `make demo CT=path` for a scan of your own")
        return None
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != CT_SHA256:
        say(f"real CT skipped: {wheels[0].name} has SHA-256 {digest}, expected {CT_SHA256}")
        return None
    target.mkdir()
    with zipfile.ZipFile(wheels[0]) as archive:
        for name in archive.namelist():
            if name.startswith(CT_FOLDER) and name.endswith(".dcm"):
                (target / Path(name).name).write_bytes(archive.read(name))
    return target


# Of the default model, whose own threshold leaves few findings.
FIRST_LOOK = ["--score-thr", "0.1", "--max-boxes", "20"]
# That of the miniatures, but with one scan of each patient.
PHANTOM = ["--set", *(f"{name}={value!r}" for name, value in {**SETTINGS, "max_studies": 1, "max_series": 1}.items())]


def weights(out: Path, config: str) -> str:
    """The last checkpoint of a training."""
    return (out / config / "last_checkpoint").read_text()


def make_data(out: Path) -> None:
    """Write the phantom dataset, convert it, and write one held-back scan."""
    dataset = str(out / "phantom")
    run("phantom", "deeplesion", dataset, "--patients", "60", "1", "24", *PHANTOM, log=out / "phantom.log")
    convert, scan = out / "convert.log", out / "scan.log"
    finish(
        {
            convert: start("convert", "deeplesion", dataset, log=convert, threads=1),
            scan: start("phantom", "scan", str(out / "scan.nii.gz"), "--seed", "12345", *PHANTOM, log=scan, threads=1),
        }
    )


def train_and_test(out: Path, seed: int) -> None:
    """Train both detectors side by side, one core each, then test both on complete truth."""
    data = f"data_root={written(str(out / 'phantom'))}"
    jobs = {}
    for config in CONFIGS.values():
        arguments = [
            "train",
            config,
            "--work-dir",
            str(out / config),
            "--seed",
            str(seed),
            "--cfg-options",
            data,
        ]
        jobs[out / f"{config}.train.log"] = start(*arguments, log=out / f"{config}.train.log", threads=1)
    finish(jobs)
    jobs = {}
    for config in CONFIGS.values():
        arguments = ["test", config, weights(out, config), "--work-dir", str(out / config)]
        arguments += ["--out", str(out / f"{config}.json"), "--cfg-options", data]
        jobs[out / f"{config}.test.log"] = start(*arguments, log=out / f"{config}.test.log", threads=1)
    finish(jobs)


def report_froc(out: Path) -> None:
    """Print the FROC table of both detectors."""
    from mmpluld.evaluation.evaluate import evaluate_files
    from mmpluld.visualization.froc_plot import plot_froc

    truth = out / "phantom/truth/test_key_slices.json"
    results = {
        label: evaluate_files(out / f"{config}.json", truth, "deeplesion-2d") for label, config in CONFIGS.items()
    }
    first = next(iter(results.values()))
    say(f"\nsensitivity on {first['num_images']} phantom key slices, complete truth ({first['num_lesions']} lesions)")
    say(f"{'FPs per image':<28}" + "".join(f"{level:>8g}" for level in first["levels"]) + "  avg .5-4")
    for label, result in results.items():
        values = "".join(f"{value:8.3f}" for value in result["sensitivity"])
        say(f"{label:<28}{values}  {result['average']:8.3f}")
    (out / "froc.json").write_text(json.dumps(results, indent=2) + "\n")
    plot_froc(results, out / "froc.png")


def detect(out: Path, scans: dict[str, Path]) -> list[Path]:
    """Detect lesions in scans, side by side; return the pages to open.

    In the phantom with the detector that was trained here, in a real CT with the default one of ``mmpluld detect``.
    """
    config = CONFIGS["with the partial-label loss"]
    trained = ["--config", config, "--checkpoint", weights(out, config), "--score-thr", "0.5"]
    logs = {name: out / f"detect_{name}.log" for name in scans}
    jobs = {}
    for name, scan in scans.items():
        arguments = ["detect", str(scan), *(trained if name == "phantom" else FIRST_LOOK)]
        arguments += ["--out", str(out / f"detect_{name}"), "--overwrite"]
        jobs[logs[name]] = start(*arguments, log=logs[name], threads=max(1, usable_cores() // len(scans)))
    finish(jobs)
    for log in logs.values():
        said = [line for line in log.read_text().splitlines() if line and not line.startswith("note:")]
        say(said[-1])
    return [out / f"detect_{name}/report.html" for name in scans]


def say_rank(scan: Path, detections: Path) -> None:
    """Print which finding is the tumour that the authors of the downloaded CT outlined, by the rule of ``lens-3d``."""
    import pydicom

    from mmpluld.evaluation.functional import LENS_3D
    from mmpluld.structures import DetectionSet, pairwise_overlap

    (outline,) = scan.glob("DCM_RS_*.dcm")
    (contours,) = pydicom.dcmread(outline).ROIContourSequence
    points = np.concatenate([np.reshape(item.ContourData, (-1, 3)) for item in contours.ContourSequence])
    tumour = np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(float)[None]
    (found,) = DetectionSet.load(detections).volumes.values()
    assert found.world_lps is not None
    hit = pairwise_overlap(found.world_lps, tumour, LENS_3D.overlap)[:, 0] >= LENS_3D.threshold
    where = f"finding {hit.argmax() + 1}" if hit.any() else "none"
    say(f"real CT: the tumour that its authors outlined is {where} of {len(hit)}, best score first")


def empty(out: Path) -> None:
    """Remove what an earlier demo wrote; a folder that no demo made, or that holds anything else, is refused."""
    check_output_folder(out)
    present = sorted(out.iterdir()) if out.exists() else []
    if present and not (out / MARK).is_file():
        raise InputError(f"{out}: holds {present[0].name} and is no folder of a demo; remove it, or give another")
    present = [item for item in present if item.name != MARK]
    for item in present:
        own = ("phantom", "convert.", "scan.", "froc.", "download", "detect_", *CONFIGS.values(), ".tmp-mmpluld-")
        if not item.name.startswith(own):
            raise InputError(f"{item}: is no part of a demo, so {out} is not replaced; give another folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text("Made by tools/demo.py, which empties this folder when it runs again.\n")
    for item in present:
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder of the demo; replaced")
    parser.add_argument("--ct", type=Path, help="a CT scan of your own instead of the downloaded one")
    parser.add_argument("--seed", type=seed, default=0, help="seed of both trainings")
    options = parser.parse_args()
    if options.ct is not None and not options.ct.exists():
        raise InputError(f"{options.ct}: no such file or folder; CT= takes a scan file or a DICOM folder")
    begin = time.monotonic()
    empty(options.out)
    make_data(options.out)
    train_and_test(options.out, options.seed)
    report_froc(options.out)
    scans = {"phantom": options.out / "scan.nii.gz"}
    real = options.ct or fetch_real_ct(options.out / "download")
    if real is not None:
        scans["real_ct"] = real
    pages = detect(options.out, scans)
    if real is not None and options.ct is None:
        say_rank(real, options.out / "detect_real_ct/detections.json")
    say(f"\ndone in {(time.monotonic() - begin) / 60:.1f} minutes; open in a browser:")
    for page in pages:
        say(f"  {page}")
    return 0


if __name__ == "__main__":
    try:
        with ends_with_signals():
            sys.exit(main())
    except InputError as error:
        say(f"demo: error: {error}", sys.stderr)
        sys.exit(2)
    except Ended as ended:
        say(f"demo: ended by {ended.name}", sys.stderr)
        raise
    except KeyboardInterrupt:
        say("demo: interrupted", sys.stderr)
        sys.exit(130)
