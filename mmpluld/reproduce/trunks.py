"""Trunks: the backbones of twins, taught which organ is where on phantom patients that no detector sees.

They are for the twins what ImageNet is for the papers' detectors. Each is trained once, in ``WORK_DIR/trunks``, and
serves every row whose backbone has the same architecture, in every table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpluld.atomic import atomic_path, is_unfinished
from mmpluld.errors import InputError
from mmpluld.inputs import sha256_of
from mmpluld.phantom.layout_organs import organs_record
from mmpluld.reproduce.children import Resources, run_commands
from mmpluld.reproduce.graph import last_weights, refuse_unknown, save_record, whole_config_digest
from mmpluld.reproduce.start import Start, StartOf, architecture, backbones, start_options
from mmpluld.reproduce.twin_data import SEED, digest, phantom_command
from mmpluld.structures.text_files import read_object

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = ["TRUNK_PATIENTS", "TRUNK_SETTINGS", "ensure_trunks", "trunk_name"]

TRUNK_PATIENTS = (80, 8)
"""Patients to learn from and to measure the accuracy on."""

TRUNK_SETTINGS: dict[str, Any] = {"max_slices": 24}
"""Of `PhantomSpec`; there are no lesions. Many patients with few slices each show more than few with many."""

_SEED = 0  # of the training
_RECORD = "the record of a trunk as it was written, or remove the folder of trunks to train them anew"


@cache
def _known() -> dict[str, str]:
    """Name of each trunk's twin, by the architecture of its backbone."""
    from mmpluld.engine.config import FoundConfig, load_config
    from mmpluld.zoo.index import zoo_root

    found = {}
    for path in sorted((zoo_root() / "configs" / "trunks").glob("*.py")):
        config = FoundConfig(path, twin=True)
        (backbone,) = backbones(load_config(config)).values()
        found[architecture(backbone)] = config.name
    return found


def trunk_name(row: str, config: Config) -> str | None:
    """Name of the config of the trunk that a row's backbones start from; None if the row names a start of its own.

    Raises:
        InputError: If no trunk has this backbone.
    """
    wanted = {architecture(backbone): backbone["type"] for backbone in backbones(config).values()}
    for text, kind in wanted.items():
        if text not in _known():
            raise InputError(
                f"{row}: no trunk has its backbone ({kind}); add a config with the same one to configs/trunks, or "
                "start from random weights with --pretrained none"
            )
    names = {_known()[text] for text in wanted}
    if len(names) > 1:
        raise InputError(f"{row}: its backbones differ ({', '.join(sorted(names))}); one start serves one architecture")
    return next(iter(names), None)


def ensure_trunks(
    wanted: Iterable[tuple[str, Config]],
    work_dir: Path,
    resources: Resources,
    command: Callable[[list[str], Path], None],
    patients: Sequence[int] = TRUNK_PATIENTS,
    settings: dict[str, Any] = TRUNK_SETTINGS,
    cfg_options: Sequence[str] = (),
) -> StartOf:
    """Train the trunks that some rows need and that are not there, several at once, and return the starts.

    A call that was interrupted goes on with the next one.

    Args:
        wanted: Name and config of each row that will be trained.
        work_dir: Trunks are in its folder ``trunks``, their phantom in ``phantom-organs``.
        resources: What the trainings may use.
        command: Runs the ``mmpluld`` command with the given arguments and log file, and raises if it fails.
        patients, settings: Of the phantom.
        cfg_options: Changes to the trunks' configs.

    Returns:
        The start of any config: of one whose trunk is not there, none.

    Raises:
        InputError: If no trunk fits a row, or a folder holds another phantom or another trunk.
        RunFailed: If a training fails.
    """
    names = sorted({name for row, config in wanted if (name := trunk_name(row, config))})
    root, data = work_dir / "trunks", work_dir / "phantom-organs"
    if names:
        _ensure_phantom(data, patients, settings, command)
    missing = {}
    for name in names:
        identity = _identity(name, data, cfg_options)
        if not _is_there(root, name, identity):
            missing[name] = identity
    commands = []
    for name, identity in missing.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        save_record(folder / "trunk.json", {"identity": identity, "sha256": ""})
        arguments = ["train", name, "--work-dir", str(folder), "--seed", str(_SEED), "--resume", "--cfg-options"]
        commands.append(([*arguments, *cfg_options, *_data_option(data)], folder / "train.log"))
    if commands:
        print(f"training {len(commands)} trunks, from which the rows start: {', '.join(missing)}", flush=True)
        run_commands(commands, resources)
    for name, identity in missing.items():
        _keep_backbone(root, name)
        save_record(root / name / "trunk.json", {"identity": identity, "sha256": sha256_of(_weights(root, name))})

    def start(config: Config) -> Start:
        places = backbones(config)
        name = _known().get(architecture(next(iter(places.values())))) if places else None
        if name is None or not _weights(root, name).is_file():
            return Start()
        file = _weights(root, name)
        return Start(tuple(start_options(places, "TrunkWeights", file)), sha256_of(file))

    return start


def _ensure_phantom(
    root: Path, patients: Sequence[int], settings: dict[str, Any], command: Callable[[list[str], Path], None]
) -> None:
    """Make the trunks' phantom unless it is there."""
    record = root / "phantom.json"
    expected = organs_record(patients, SEED, settings)
    if record.is_file() and read_object(record, "the phantom's settings, or remove its folder", ()) != expected:
        raise InputError(f"{record}: this phantom was made with other settings than the trunks'; remove the folder")
    if not (root / "annotations" / "val.json").is_file() or is_unfinished(record):
        command(phantom_command(root, "organs", patients, settings), root.with_name(f"{root.name}.log"))


def _identity(name: str, data: Path, cfg_options: Sequence[str]) -> dict[str, Any]:
    """What a trunk depends on."""
    from mmpluld.engine.config import load_config

    return {
        "config": name,
        "config_sha256": whole_config_digest(load_config(name, list(cfg_options))),
        "data_sha256": digest([data / "phantom.json", data / "annotations" / "train.json"]),
        "seed": _SEED,
    }


def _is_there(root: Path, name: str, identity: dict[str, Any]) -> bool:
    """Whether a trunk is trained; refused if its folder holds another one or one of which nothing is known, or its
    weights are not those of the record.

    What was trained for another config would be resumed from, or be the start of runs that say they had this one.
    """
    path = root / name / "trunk.json"
    if not path.is_file():
        refuse_unknown(path.parent, path.name)
        return False
    record = read_object(path, _RECORD, ("identity", "sha256"))
    if record["identity"] != identity:
        raise InputError(
            f"{path}: this trunk is of another version of its config or its phantom; remove {root}, or choose another "
            "--work-dir"
        )
    weights = _weights(root, name)
    if not record["sha256"] or not weights.is_file():
        return False
    if sha256_of(weights) != record["sha256"]:
        raise InputError(f"{weights}: is not the trunk that was trained here; remove it, and it is made again")
    return True


def _weights(root: Path, name: str) -> Path:
    return root / f"{name}.pth"


def _keep_backbone(root: Path, name: str) -> None:
    """Write the backbone of a finished training alone: the same bytes for the same weights, wherever they were made."""
    from mmpluld.engine.checkpoint import checkpoint_bytes, load_checkpoint_safely

    state = load_checkpoint_safely(last_weights(root / name))["state_dict"]
    kept = {key: value.clone() for key, value in state.items() if key.startswith("backbone.")}
    with atomic_path(_weights(root, name)) as temporary:
        temporary.write_bytes(checkpoint_bytes({"state_dict": kept}))


def _data_option(data: Path) -> list[str]:
    from mmpluld.engine.option_values import written

    return [f"data_root={written(str(data))}"]
