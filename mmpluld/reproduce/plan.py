"""What is to be trained and made for the rows of a table, and in which order: runs, and the steps between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mmpluld.errors import InputError
from mmpluld.mining.harvest import HarvestRules
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.strategy_table import find_strategy
from mmpluld.reproduce.graph import Job, batch_shares, identity_digest, last_weights, whole_config_digest
from mmpluld.reproduce.rows import FPR, Labels, Row
from mmpluld.reproduce.runner import Run
from mmpluld.reproduce.start import NO_START, StartOf, random_start
from mmpluld.reproduce.steps import Step, step_of

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = ["Plan", "detectors_behind", "plan", "with_needs"]

_FIRST = "train_dataloader.dataset.datasets.deeplesion"  # whose labels are mined
# By size. The paper's delta is a distance in LesaNet's space; in the miniature tags alone do not tell lesions of one
# kind apart, so its embedder learns from two views of each mark, too.
_EMBEDDER = {"twin": "lesanet_vgg16_instances", "paper": "lesanet_vgg16"}
_MINED_FILE = "train_mined.json"  # in the configs of rows on mined labels


def plan(
    rows: Sequence[Row],
    seeds: int,
    work_dir: Path,
    protocol: str,
    *,
    twins: bool = False,
    split: str = "test",
    data_root: Path | None = None,
    cfg_options: Sequence[str] = (),
    start_of: StartOf = random_start,
) -> list[Run]:
    """All runs of some rows, the first seed of every row first; what they need hangs on them.

    Args:
        rows: What to train.
        seeds: How many seeds, from 0.
        work_dir: Folder of all runs, shared by tables.
        protocol: Name of the evaluation's rules.
        twins: Take the configs of phantom size.
        split: ``val`` tests on the validation patients: on the config's truth of the test with that word in its name.
        data_root: Replaces the configs' dataset folder.
        cfg_options: Further changes to the config of every detector; they come after the row's own.
        start_of: What the backbones of a config start from.

    Raises:
        InputError: If a config or its annotation files are missing, if ``cfg_options`` make two rows the same, or a
            run's folder holds a run of another config, data or options.
    """
    planned = Plan(rows, work_dir, protocol, twins, split, data_root, cfg_options, start_of)
    if cfg_options:
        planned.refuse_levelling()
    runs = [planned.run(row, seed) for seed in range(seeds) for row in rows]
    for job in with_needs(runs):
        job.look()
    return runs


def with_needs(jobs: Iterable[Job], unfinished: bool = False) -> list[Job]:
    """Some jobs and all that they need, each once and after its needs.

    Args:
        jobs: Which.
        unfinished: Leave out what is done, and what only that needed: it may have been tidied away since.
    """
    ordered: dict[Job, None] = {}

    def add(job: Job) -> None:
        if job not in ordered and not (unfinished and job.state == "done"):
            for need in job.needs:
                add(need)
            ordered[job] = None

    for job in jobs:
        add(job)
    return list(ordered)


def detectors_behind(rows: Iterable[Row]) -> list[Row]:
    """Rows whose weights the labels and the false-positive reduction of some rows are made with."""
    found: dict[Row, None] = {}
    for row in rows:
        behind = [] if row.fpr is None else [row.fpr.detector]
        labels = row.labels
        while labels is not None:
            behind.append(labels.detector)
            labels = labels.after
        found |= dict.fromkeys([*behind, *detectors_behind(behind)])
    return list(found)


class Plan:
    """Runs and steps of a table, each made once. Arguments are those of :func:`plan`."""

    def __init__(
        self,
        rows: Sequence[Row],
        work_dir: Path,
        protocol: str,
        twins: bool,
        split: str,
        data_root: Path | None,
        cfg_options: Sequence[str],
        start_of: StartOf,
    ) -> None:
        self.rows = {row.key: row for row in rows}
        self.work_dir, self.protocol, self.twins, self.split = work_dir, protocol, twins, split
        self.data_root, self.cfg_options, self.start_of = data_root, list(cfg_options), start_of
        self._runs: dict[tuple[str, str, int], Run] = {}
        self._steps: dict[Path, Step] = {}
        self._configs: dict[tuple[str, tuple[str, ...]], Config] = {}
        self._described: dict[tuple[str, str], tuple[str, dict[str, Any], Path, list[str]]] = {}

    def _loaded(self, name: str, changes: Sequence[str]) -> Config:
        """A config, read once for all rows, seeds and steps; not to be changed."""
        from mmpluld.engine.config import load_config

        key = name, tuple(changes)
        if key not in self._configs:
            self._configs[key] = load_config(name, list(changes))
        return self._configs[key]

    def _changes(self, row: Row) -> list[str]:
        """Changes to the config of a row's detector."""
        return [*row.options, *self.cfg_options]

    def refuse_levelling(self) -> None:
        """Refuse options that set what rows differ in: the table would show one config under several names.

        Raises:
            InputError: An option sets what options of a row set, or two rows that are trained alike, or tested with the
                weights of one of them, are the same with the options and are not without.
        """
        given = f"--cfg-options {' '.join(self.cfg_options)}"
        known: dict[tuple[Any, ...], tuple[str, str]] = {}
        for row in self.rows.values():
            name = row.config_name(self.twins)
            plain, changed = (
                whole_config_digest(self._loaded(name, part)) for part in (row.options, self._changes(row))
            )
            tested = changed, row.fpr, row.calibrated
            # What trains is compared with all that train, and with what tests its weights.
            groups = (
                [("weights", row.weights_of)] if row.weights_of else [("weights", row.key), ("trained", row.labels)]
            )
            for group in groups:
                other, before = known.setdefault((group, *tested, row.fold), (row.key, plain))
                if before != plain:
                    raise InputError(
                        f"{given}: makes the rows {other} and {row.key} the same; leave out what the table compares"
                    )
        for option, row in product(self.cfg_options, self.rows.values()):
            place = option.partition("=")[0]
            for own in (change.partition("=")[0] for change in row.options):
                if f"{own}.".startswith(f"{place}.") or f"{place}.".startswith(f"{own}."):
                    raise InputError(f"{given}: {place} is what the row {row.key} sets; leave it out")

    def run(self, row: Row, seed: int, split: str | None = None) -> Run:
        """The run of a row with a seed, tested on the patients of ``split``, by default the table's."""
        split = self.split if split is None else split
        name = row.run_name(self.twins, split)
        known = self.rows.get(row.key)
        if known is not None and known.run_name(self.twins, split) == name:
            row = known  # whoever asks, it is the row of the table, with its label
        if (name, row.key, seed) not in self._runs:
            self._runs[name, row.key, seed] = self._made(row, seed, split)
        return self._runs[name, row.key, seed]

    def _made(self, row: Row, seed: int, split: str) -> Run:
        name = row.run_name(self.twins, split)
        if (name, split) not in self._described:
            self._described[name, split] = self._describe(row, split)
        config, identity, truth, options = self._described[name, split]
        run = Run(
            row=row,
            seed=seed,
            config=config,
            folder=self.work_dir / name / f"seed{seed}",
            truth=truth,
            protocol=self.protocol,
            identity={**identity, "seed": seed},
            options=list(options),
            # What only lends its weights is tested where it is a row itself.
            tested=split == self.split and self.rows.get(row.key) is row,
        )
        steps: list[Step] = []
        if row.labels is not None:
            steps.append(self.mined(row.labels, seed))
            run.options += [f"{_FIRST}.ann_file={_written(steps[-1].makes.absolute())}"]
        if row.fpr is not None:
            steps.append(self._classifier(row.fpr, seed))
            run.late_options = self._rescoring(row.fpr, steps[-1])
            run.identity["fpr"] = row.fpr.mode
        if row.weights_of:
            run.trainer = self.run(self.rows[row.weights_of], seed, split)
            run.identity["weights_config_sha256"] = run.trainer.identity["config_sha256"]
            steps += [need for need in run.trainer.needs if isinstance(need, Step)]
        elif split != "test":
            # Trained once, whoever it is tested on.
            run.trainer = self.run(row, seed, "test")
        if steps:
            run.identity["needs_sha256"] = identity_digest(steps)
        run.needs = [*steps, *([run.trainer] if run.trainer else [])]
        return run

    def _describe(self, row: Row, split: str) -> tuple[str, dict[str, Any], Path, list[str]]:
        """Config, identity, truth file and options of a row."""
        from mmpluld.reproduce.twin_data import digest

        name = row.config_name(self.twins)
        changes = self._changes(row)
        if row.fold is not None:
            changes += [f"{_FIRST}.fold=[{row.fold[0]},{row.fold[1]}]"]
            changes += [f"{_FIRST}.fold_part=out"]
        cfg = self._loaded(name, changes)
        if split != "test":
            changes.append(f"test_dataloader.dataset.ann_file={_written(_of_split(cfg, name, split))}")
            cfg = self._loaded(name, changes)
        start = self.start_of(cfg)
        # Where data and weights lie and how many checkpoints are kept changes no result: no part of the identity.
        files = _annotation_files(cfg, self.data_root, row)
        identity = {
            "config": name,
            "config_sha256": whole_config_digest(cfg),
            "data_sha256": digest(files),
            "cfg_options": changes,
            "start_sha256": start.sha256,
        }
        options = [*changes, *start.options, "default_hooks.checkpoint.max_keep_ckpts=1"]
        # Labels that a person gave are on key slices, mined ones on any.
        complete = "train_key_slices.json" if row.labels is None else "train.json"
        truth = files[0].absolute().parents[1] / "truth" / complete
        if self.twins and truth.is_file():  # measures, and changes no result either
            options += ["default_hooks.negatives.type=NegativesHook"]
            options += [f"default_hooks.negatives.truth={_written(truth)}"]
        options += [f"data_root={_written(self.data_root)}"] if self.data_root else []
        return name, identity, files[-1], options

    def _steps_folder(self, detector: Row, title: str, seed: int) -> Path:
        return self.work_dir / "steps" / detector.run_name(self.twins) / title / f"seed{seed}"

    def _step(
        self,
        title: str,
        detector: Row,
        seed: int,
        needs: Sequence[Job],
        settings: Sequence[str],
        arguments: Callable[[Path], list[str]],
        makes: str,
        parallel: bool = False,
        files: Sequence[Path] = (),
    ) -> Step:
        """A step in the folder of a detector; ``arguments`` gets that folder. See :func:`step_of`."""
        folder = self._steps_folder(detector, title, seed)
        if folder not in self._steps:
            self._steps[folder] = step_of(
                title, seed, folder, needs, settings, partial(arguments, folder), folder / makes,
                parallel=parallel, files=files,
            )  # fmt: skip
        return self._steps[folder]

    def proposed(self, detector: Row, seed: int, fold: tuple[int, int] | None = None, view: float = 1.0) -> Step:
        """Proposals of a row's detector on the training volumes: on those of a fold, or of another look at them."""
        run = self.run(detector, seed, "test")
        annotations, images = self._training_data(detector)
        title = "propose" + (f"-{view:g}" if view != 1 else "") + (f"-fold{fold[0]}" if fold else "")
        looks = self._resized(detector, view)

        def arguments(folder: Path) -> list[str]:
            command = ["propose", run.config, str(run.weights), "--out", str(folder / "proposals")]
            command += ["--annotations", str(annotations), "--data-root", str(images)]
            command += ["--fold", f"{fold[0]}/{fold[1]}"] if fold else []
            return [*command, "--cfg-options", *run.options, *looks]

        settings = [*looks, *(map(str, fold) if fold else ())]
        return self._step(title, detector, seed, [run], settings, arguments, "proposals/proposals.json", True)

    def _resized(self, detector: Row, factor: float) -> list[str]:
        """Changes to a detector's config that make it look at larger or smaller images in the test."""
        if factor == 1:
            return []
        cfg = self._loaded(detector.config_name(self.twins), self._changes(detector))
        resize, place = cfg.test_dataloader.dataset.pipeline.resize, "test_dataloader.dataset.pipeline.resize"
        changes = [f"{place}.pixel_mm={resize.pixel_mm / factor:g}"]
        if resize.get("max_size"):  # else larger images would be shrunk again
            changes.append(f"{place}.max_size={round(resize.max_size * factor)}")
        return changes

    def mined(self, labels: Labels, seed: int) -> Step:
        """Labels mined for a seed."""
        rules = labels.twin_rules if self.twins else labels.rules
        before = self.mined(labels.after, seed) if labels.after else None
        proposals = [] if labels.oracles and not labels.strategies else [self.proposed(labels.detector, seed)]
        proposals += [self.proposed(labels.detector, seed, view=view) for view in labels.views]
        matches = any(find_strategy(name).matches for name in labels.strategies)
        embedded = [self._embedded(labels.detector, seed, rules)] if matches else []
        annotations, images = self._training_data(labels.detector)
        truth = images / "truth" / "train.json"

        def arguments(folder: Path) -> list[str]:
            command = ["mine", str(before.makes if before else annotations)]
            command += [str(step.makes.parent) for step in proposals]
            command += ["--strategies", *labels.strategies] if labels.strategies else []
            command += ["--oracle", *labels.oracles] if labels.oracles else []
            command += ["--embeddings", *(str(step.makes.parent) for step in embedded)] if embedded else []
            command += ["--truth", str(truth)] if truth.is_file() else []
            return [
                *command, *rules, "--out", str(folder / "mined.json"), "--report", str(folder / "report.json")
            ]  # fmt: skip

        needs: list[Job] = [*proposals, *embedded, *([before] if before else [])]
        settings = [*labels.strategies, *labels.oracles, *rules, *_defaults(MiningOptions())]
        # The truth too: oracles mine from it alone, and the others' report is about it.
        files = [annotations, *([truth] if truth.is_file() else [])]
        return self._step(
            f"mine-{labels.key}", labels.detector, seed, needs, settings, arguments, "mined.json", files=files
        )

    def _embedded(self, detector: Row, seed: int, rules: Sequence[str]) -> Step:
        """Embeddings of the lesions and of a detector's tracklets, which end as the rules of mining say.

        One embedder serves all seeds.
        """
        ends = [item for name, value in pairwise(rules) if name == "--box-score" for item in (name, value)][-2:]
        embedder, proposals = self._embedder(), self.proposed(detector, seed)
        annotations, images = self._training_data(detector)

        def arguments(folder: Path) -> list[str]:
            command = [
                "embed",
                self._config(self._embedder_name, "15e"),
                str(last_weights(embedder.folder)),
            ]
            command += ["--annotations", str(annotations), "--data-root", str(images)]
            return [*command, *ends, "--proposals", str(proposals.makes.parent), "--out", str(folder / "embeddings")]

        needs = [embedder, proposals]
        return self._step(
            "-".join(["embed", *ends[1:]]), detector, seed, needs, ends, arguments, "embeddings/embeddings.json", True
        )

    @property
    def _embedder_name(self) -> str:
        return _EMBEDDER["twin" if self.twins else "paper"]

    def _embedder(self) -> Step:
        folder = self.work_dir / "steps" / "embedder"
        if folder not in self._steps:
            config = self._config(self._embedder_name, "15e")
            self._steps[folder] = self._training("embedder", folder, 0, config, (), ())
        return self._steps[folder]

    def _classifier(self, fpr: FPR, seed: int) -> Step:
        """The training of the false-positive reduction, on proposals for patients that their detectors never saw."""
        detectors = [
            replace(fpr.detector, key=f"{fpr.detector.key}-fold{fold}", fold=(fold, fpr.folds))
            for fold in range(fpr.folds)
        ]
        proposals = [self.proposed(row, seed, fold=row.fold) for row in detectors]
        labels = self.mined(fpr.detector.labels, seed) if fpr.detector.labels else None
        annotations, _ = self._training_data(fpr.detector)

        def harvest(folder: Path) -> list[str]:
            command = ["harvest", str(labels.makes if labels else annotations)]
            command += [str(step.makes.parent) for step in proposals]
            return [*command, "--out", str(folder / "candidates.json")]

        needs = [*proposals, *([labels] if labels else [])]
        defaults = _defaults(HarvestRules())
        candidates = self._step("harvest", fpr.detector, seed, needs, defaults, harvest, "candidates.json")
        folder = self._steps_folder(fpr.detector, fpr.config, seed)
        if folder not in self._steps:
            file = _written(candidates.makes.absolute())
            changes = [f"{part}_dataloader.dataset.ann_file={file}" for part in ("train", "val")]
            changes += ["train_cfg.val_begin=1000"]  # never: what is tested decides
            config = fpr.config_name(self.twins)
            self._steps[folder] = self._training(fpr.config, folder, seed, config, [candidates], changes)
        return self._steps[folder]

    def _rescoring(self, fpr: FPR, classifier: Step) -> Callable[[], list[str]]:
        def options() -> list[str]:
            weights = last_weights(classifier.folder)
            return [
                f"test_cfg.fpr.checkpoint={_written(weights.absolute())}",
                f"test_cfg.fpr.config={fpr.config_name(self.twins)}",
                f"test_cfg.fpr.mode={fpr.mode}",
            ]

        return options

    def _training(
        self, title: str, folder: Path, seed: int, config: str, needs: Sequence[Job], changes: Sequence[str]
    ) -> Step:
        """A training that is no row of a table."""
        cfg = self._loaded(config, [])
        root = [f"data_root={_written(self.data_root / 'deeplesion')}"] if self.data_root else []
        # What a step before it makes is known by that step.
        data = self._loaded(config, root).train_dataloader.dataset
        files = [] if needs else [Path(data.data_root) / data.ann_file]

        # Miniatures of these are trained from random weights: trunks are of detectors.
        start = NO_START if self.twins else self.start_of(cfg)

        def arguments() -> list[str]:
            command = ["train", config, "--work-dir", str(folder), "--seed", str(seed), "--resume", "--cfg-options"]
            return [*command, *changes, *start.options, *root, "default_hooks.checkpoint.max_keep_ckpts=1"]

        settings = [whole_config_digest(cfg), *([start.sha256] if start.sha256 else [])]
        return step_of(
            title, seed, folder, needs, settings, arguments, folder / "last_checkpoint", parallel=True, files=files,
            shares=partial(batch_shares, cfg),
        )  # fmt: skip

    def _config(self, stem: str, schedule: str) -> str:
        return f"{stem}_phantom" if self.twins else f"{stem}_{schedule}_deeplesion"

    def _training_data(self, detector: Row) -> tuple[Path, Path]:
        """Annotation file and folder of the dataset whose labels are mined, as it was before."""
        from mmpluld.datasets.named_concat import dataset_settings

        cfg = self._loaded(detector.config_name(self.twins), self._changes(detector))
        part = dataset_settings(cfg.train_dataloader.dataset)[0]
        root = Path(self.data_root or part["data_root"]).absolute()
        images = root / part.get("data_prefix", {}).get("img_path", "")
        return images / "annotations" / "train.json", images


def _of_split(cfg: Config, name: str, split: str) -> str:
    """The annotation file of a config's test, of other patients."""
    path = PurePosixPath(cfg.test_dataloader.dataset.ann_file)
    if "test" not in path.name:
        raise InputError(
            f"{name}: it tests on {path}, of which no file of the {split} patients is known; give the test's file a "
            "name with 'test' in it"
        )
    before, _, after = path.name.rpartition("test")
    return str(path.with_name(f"{before}{split}{after}"))


def _annotation_files(cfg: Config, data_root: Path | None, row: Row) -> list[Path]:
    """Those of the training, of every dataset that is put together there, of a calibration, and last of the test.

    In the place of mined labels, which a step makes, stands what they are mined from.
    """
    from mmpluld.datasets.named_concat import dataset_settings

    parts = [*dataset_settings(cfg.train_dataloader.dataset), *([cfg.val_dataloader.dataset] if row.calibrated else ())]
    parts.append(cfg.test_dataloader.dataset)
    files = [Path(data_root or part["data_root"]) / part["ann_file"] for part in parts]
    return [file.with_name("train.json") if file.name == _MINED_FILE else file for file in files]


def _written(value: object) -> str:
    from mmpluld.engine.option_values import written

    return written(str(value))


def _defaults(rules: MiningOptions | HarvestRules) -> list[str]:
    """What holds where a step says nothing else: with other defaults of a later version it makes something else."""
    return [f"{name}={value}" for name, value in asdict(rules).items() if value not in (None, ())]
