from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmpluld.models import cpu
from mmpluld.models.cpu import Shortcut, on_cpu, plain_networks

FOLDER = Path(cpu.__file__).parent


class Doubler(nn.Module):
    """Doubles what is not negative by a shortcut; which way was taken shows in the data type."""

    shortcut = Shortcut(
        lambda network, x, plus=0: 2 * _one(x).double() + plus, lambda network, x: bool((_one(x) >= 0).all())
    )

    @on_cpu(shortcut)
    def forward(self, x: Tensor | tuple[Tensor, ...], plus: int = 0) -> Tensor:
        """Plainly."""
        return 2 * _one(x) + plus


def _one(x: Tensor | tuple[Tensor, ...]) -> Tensor:
    return x if isinstance(x, Tensor) else x[0]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,)])
def test_a_call_goes_where_it_can(wrap):
    network, x = Doubler(), torch.tensor([1.0, 2.0])
    found = network(wrap(x), plus=1)
    assert found.dtype == torch.float64
    assert found.tolist() == [3.0, 5.0]
    assert network(wrap(-x)).dtype == torch.float32  # does not fit
    assert network(wrap(x.to("meta"))).dtype == torch.float32  # not on a CPU
    assert Doubler.forward.__doc__ == "Plainly."


def test_the_switch_and_its_end():
    network, x = Doubler(), torch.ones(2)
    with pytest.raises(ZeroDivisionError), plain_networks():
        assert network(x).dtype == torch.float32
        with plain_networks():
            assert network(x).dtype == torch.float32
        assert network(x).dtype == torch.float32
        _ = 1 / 0
    assert network(x).dtype == torch.float64


def test_the_switch_of_a_process():
    assert cpu.STEM.serves(None, torch.zeros(1))
    environment = {**os.environ, "MMPLULD_CPU_SHORTCUTS": "0"}
    code = "import torch; from mmpluld.models.cpu import STEM; print(STEM.serves(None, torch.zeros(1)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_shortcuts_do_not_know_the_networks():
    for file in FOLDER.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        ours = {str(name) for name in names if str(name).startswith("mmpluld")}
        assert all(name.startswith("mmpluld.models.cpu.") for name in ours), (file.name, ours)


def test_every_shortcut_is_described():
    described = set(re.findall(r"^``([A-Z_]+)`` ", cpu.__doc__, re.MULTILINE))
    assert described == {name for name in cpu.__all__ if isinstance(getattr(cpu, name), Shortcut)}
