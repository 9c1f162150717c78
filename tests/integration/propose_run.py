"""Run by test_propose.py: proposes in two processes at once, and in one that is killed and its successor.

Arguments: a folder in which the stores ``two`` and ``killed`` are made, config, weights, the score from which boxes are
linked, changes to the config. The last line of the output says in JSON who made how many shards.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

torch.set_num_threads(1)

from mmpluld.compat.ops import install_ops  # noqa: E402

install_ops()

import mmpluld.datasets  # noqa: E402
import mmpluld.inference.propose as module  # noqa: E402
import mmpluld.models  # noqa: E402, F401  loaded once, before the children are forked


def fork(work: Callable[[], None]) -> int:
    """Number of a child process that does some work."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


FOLDER, CONFIG, WEIGHTS, LINK, *CHANGES = sys.argv[1:]


def propose(name: str, launcher: str = "none") -> int:
    """Make the store of this name; returns how many volumes this process has examined."""
    settings = {"launcher": launcher, "cfg_options": CHANGES, "link_score_thr": float(LINK)}
    return module.propose(CONFIG, WEIGHTS, Path(FOLDER, name), **settings).num_made


def one_of_two(rank: int) -> None:
    """Propose as process ``rank`` of two, and write down how many volumes that were."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    # torchrun would bring them together by an address; a file needs no free port.
    torch.distributed.init_process_group("gloo", init_method=f"file://{FOLDER}/meeting", rank=rank, world_size=2)
    Path(FOLDER, f"made{rank}").write_text(str(propose("two", "pytorch")))


def main() -> None:
    Path(FOLDER).mkdir()
    children = [fork(lambda rank=rank: one_of_two(rank)) for rank in range(2)]
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    killed = Path(FOLDER, "killed")
    child = fork(lambda: propose("killed"))
    while not list(killed.glob("volumes/[!.]*.npz")):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "ended without a shard"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left = len(list(killed.glob("volumes/[!.]*.npz")))
    after = propose("killed")
    made = [int(Path(FOLDER, f"made{rank}").read_text()) for rank in range(2)]
    print(json.dumps({"made_by_two": made, "left_by_killed": left, "made_after": after}))


if __name__ == "__main__":
    main()
