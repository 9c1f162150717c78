"""Logs of a training that was resumed are joined, and drawn in one command."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.visualization.curves import plot_curves, read_log

PER_EPOCH = 4


def write_log(folder: Path, time: str, iterations: range, loss: float, val: dict[int, float]) -> Path:
    """What MMEngine logs: every second of four iterations of an epoch, and validations between them."""
    lines = []
    for i in iterations:
        epoch = (i - 1) // PER_EPOCH + 1
        if i % 2 == 0:
            record = {"lr": 0.1, "loss": loss, "loss_cls": loss / 2, "time": 0.1, "epoch": epoch, "iter": i, "step": i}
            lines.append(json.dumps(record))
        if i % PER_EPOCH == 0 and epoch in val:
            lines.append(json.dumps({"froc/avg": val[epoch], "froc/sens@1": 0.5, "time": 0.1, "step": epoch}))
    path = folder / time / "vis_data/scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_resumed_run_replaces_what_was_lost(tmp_path: Path) -> None:
    # Killed in epoch 3 at iteration 10, resumed after epoch 2; a test has left a folder without log in between.
    write_log(tmp_path, "20260101_000000", range(1, 11), 2.0, {1: 0.1, 2: 0.3})
    (tmp_path / "20260101_000001/vis_data").mkdir(parents=True)
    write_log(tmp_path, "20260101_000002", range(9, 17), 1.0, {3: float("nan"), 4: 0.2})
    log = read_log(tmp_path)
    assert log.series("train", "loss") == ([2, 4, 6, 8, 10, 12, 14, 16], [2.0] * 4 + [1.0] * 4)
    places, values = log.series("val", "froc/avg")
    assert places == [1, 2, 3, 4]
    assert values == pytest.approx([0.1, 0.3, float("nan"), 0.2], nan_ok=True)
    assert log.keys("train") == ["lr", "loss", "loss_cls"]
    assert log.keys("val") == ["froc/avg"]
    assert log.summary() == f"{tmp_path}: iteration 16, loss 1.0000; best froc/avg 0.3000 after epoch 2"


def test_a_training_that_starts_anew_replaces_the_former(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_000000", range(1, 17), 2.0, {1: 0.9, 4: 0.9})
    write_log(tmp_path, "20260101_000002", range(1, 7), 1.0, {1: 0.1})
    log = read_log(tmp_path)
    assert log.series("train", "loss") == ([2, 4, 6], [1.0] * 3)
    assert log.series("val", "froc/avg") == ([1], [0.1])


def test_validation_repeated_on_resuming_counts_once(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_000000", range(1, 9), 2.0, {1: 0.1, 2: 0.3})
    path = write_log(tmp_path, "20260101_000002", range(9, 13), 1.0, {3: 0.2})
    path.write_text('{"froc/avg": 0.4, "step": 2}\n' + path.read_text())
    assert read_log(tmp_path).series("val", "froc/avg") == ([1, 2, 3], [0.1, 0.4, 0.2])


def test_last_line_may_be_cut_off_but_no_other(tmp_path: Path) -> None:
    path = write_log(tmp_path, "20260101_000000", range(1, 9), 2.0, {})
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert read_log(tmp_path).series("train", "loss")[0] == [2, 4, 6]
    path.write_text("{}\n" + whole)
    with pytest.raises(InputError, match="scalars.json: line 1 is no log record"):
        read_log(tmp_path)


def test_command_draws_several_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        write_log(tmp_path / name, "20260101_000000", range(1, 9), 2.0, {1: 0.1, 2: 0.3})
    out = tmp_path / "curves.png"
    assert main(["curves", str(tmp_path / "first"), str(tmp_path / "second"), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{out}: curves of 2 trainings"
    picture = cv2.imread(str(out)).reshape(-1, 3)
    # Blue and vermilion of the two, in the order blue, green, red.
    for colour in ((178, 114, 0), (0, 94, 213)):
        assert (picture == colour).all(axis=1).sum() > 20
    again = tmp_path / "again.png"
    plot_curves([read_log(tmp_path / "first"), read_log(tmp_path / "second")], again)
    assert out.read_bytes() == again.read_bytes()


def test_panels_are_the_losses_then_the_rest_then_validation(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_000000", range(1, 9), 2.0, {1: 0.1})
    plot_curves([read_log(tmp_path)], tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text()
    places = [text.index(f"<!-- {title} -->") for title in ("loss", "loss_cls", "lr", "froc/avg")]
    assert places == sorted(places)


def test_a_single_point_can_be_seen(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_000000", range(1, 3), 1.0, {})
    plot_curves([read_log(tmp_path)], tmp_path / "curves.png")
    below_legend = cv2.imread(str(tmp_path / "curves.png"))[60:].astype(int)
    assert (below_legend[..., 0] - below_legend[..., 2] > 100).any()  # blue


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curves", str(tmp_path)]) == 2
    assert "no log of a training here" in capsys.readouterr().err
    write_log(tmp_path, "20260101_000000", range(1, 9), 2.0, {})
    assert main(["curves", str(tmp_path), "--out", str(tmp_path / "curves.bmp")]) == 2
    assert "allowed are .png, .svg, .pdf" in capsys.readouterr().err
