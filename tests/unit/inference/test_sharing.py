"""Processes that share work out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mmpluld.inference.sharing import Processes

COMPARE = """
import sys
import torch.distributed
from mmpluld.errors import InputError
from mmpluld.inference.sharing import Processes

rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
processes = Processes(rank, 2)
processes.check_same({"rules": {"score_thr": 0.3}, "units": None})
try:
    processes.check_same({"rules": {"score_thr": 0.3 + rank}, "units": None})
except InputError as error:
    print(error)
"""


def test_processes_of_different_settings_are_refused_in_all(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMPARE]
    children = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    message = (
        "process 1 was started with rules {'score_thr': 1.3}, process 0 with {'score_thr': 0.3}; start all with the "
        "same options and files\n"
    )
    assert [child.communicate(timeout=60)[0] for child in children] == [message] * 2
    Processes().check_same({"rules": {"score_thr": 0.3}})
