"""Make the starter scans and train the starter detector on them; the same command goes on where it was cut off.

Example:
    OMP_NUM_THREADS=1 python tools/train_starter.py --work-dir work_dirs/starter
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmpluld.atomic import is_unfinished
from mmpluld.cli.main import main as mmpluld
from mmpluld.engine.option_values import written
from mmpluld.errors import InputError
from mmpluld.phantom import STARTER_PATIENTS, starter_record, write_starter_layout
from mmpluld.structures.text_files import read_json

CONFIG = "fcos-25d_densenet-narrow_7s_12e_starter"
SEED = 0


def ensure_scans(root: Path, num_patients: tuple[int, int]) -> None:
    """Make the scans, unless they are there and whole.

    Raises:
        InputError: Others are there.
    """
    settings = root / "phantom.json"
    if not settings.is_file() or is_unfinished(settings):
        write_starter_layout(root, num_patients, SEED)
    wanted = json.loads(json.dumps(starter_record(num_patients, SEED)))
    found = read_json(settings, "the settings of a phantom")
    if found != wanted:
        raise InputError(f"{settings}: these scans were made with {found}, not {wanted}; choose another --data")


def train_arguments(data: Path, work_dir: str, changes: Sequence[str]) -> list[str]:
    """What is given to ``mmpluld`` to train on the scans in a folder of any name."""
    options = [f"data_root={written(str(data))}", *changes]
    return ["train", CONFIG, "--work-dir", work_dir, "--resume", "--cfg-options", *options]


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/phantom-starter"), help="folder of the scans")
    parser.add_argument("--work-dir", default="work_dirs/starter", help="folder for logs and checkpoints")
    parser.add_argument(
        "--patients", nargs=2, type=int, default=STARTER_PATIENTS, metavar=("TRAIN", "VAL"), help="scans to make"
    )
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the config")
    options = parser.parse_args()
    try:
        ensure_scans(options.data, tuple(options.patients))
    except InputError as error:
        print(f"train_starter: {error}", file=sys.stderr)
        return 2
    return mmpluld(train_arguments(options.data, options.work_dir, options.cfg_options))


if __name__ == "__main__":
    sys.exit(main())
