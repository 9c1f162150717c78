"""Jobs know what they were made of."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmpluld.errors import InputError
from mmpluld.reproduce.children import Children, Resources
from mmpluld.reproduce.graph import Caller, Job, execute, fail_outdated
from mmpluld.reproduce.steps import Step, step_of


class Writer(Caller):
    """Runs no children: its "command" is the file to write and what to write there."""

    def call(self, command: Sequence[str], log: Path) -> None:
        place, text = command[-2:]
        Path(place).write_text(text)


def chain(work: Path, weights: str = "1") -> list[Step]:
    """A training, proposals of its weights, and labels mined of these; the commands tell of what came before."""

    def step(title: str, needs: Sequence[Job], text: str) -> Step:
        file = work / title / "made.txt"
        return step_of(title, 0, work / title, needs, [], lambda: [str(file), text], file)

    train = step("train", [], f"weights {weights}")
    propose = step("propose", [train], f"proposals of {weights}")
    return [train, propose, step("mine", [propose], f"labels of {weights}")]


def do(jobs: Sequence[Step]) -> list[str]:
    for job in jobs:
        job.look()
    for job in jobs:
        if job.state != "done":
            job.folder.mkdir(parents=True, exist_ok=True)
            job.do(Writer(Children(), {}))
            job.state = "done"
    fail_outdated(jobs)
    return [job.state for job in jobs]


def test_what_was_made_from_something_else_is_not_done(tmp_path):
    assert do(chain(tmp_path)) == ["done"] * 3
    assert do(chain(tmp_path, "2")) == ["done"] * 3, "nothing was made anew"
    shutil.rmtree(tmp_path / "train")
    assert do(chain(tmp_path)) == ["done"] * 3, "the same weights again"
    shutil.rmtree(tmp_path / "train")
    again = chain(tmp_path, "2")
    assert do(again) == ["done", "failed", "failed"]
    assert again[1].error == (
        f"{tmp_path / 'propose'}: was made from what {tmp_path / 'train'} held before; remove the former, or choose "
        "another --work-dir"
    )
    with pytest.raises(InputError, match="propose: was made from what .*train held before"):
        do(chain(tmp_path, "2"))
    shutil.rmtree(tmp_path / "propose")
    assert do(chain(tmp_path, "2")) == ["done", "done", "failed"]
    shutil.rmtree(tmp_path / "mine")
    assert do(chain(tmp_path, "2")) == ["done"] * 3


def test_what_was_tidied_away_is_still_known(tmp_path):
    do(chain(tmp_path))
    (tmp_path / "train" / "made.txt").unlink()
    train, propose, _ = chain(tmp_path)
    propose.look()
    assert (propose.state, len(train.made)) == ("done", 64)


def test_a_job_that_was_begun_with_something_else_does_not_go_on(tmp_path):
    train, propose, _ = chain(tmp_path)
    do([train])
    propose.record["made_of"] = ["0" * 64]
    execute([propose], Resources(jobs=1, threads=1))
    assert propose.state == "failed"
    assert "held before" in propose.error
