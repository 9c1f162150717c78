"""What `mmpluld models` prints."""

from __future__ import annotations

import json

import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.zoo.index import load_index
from mmpluld.zoo.listing import as_records, format_models, select_models

PAPER_ROW = "pluld-a3d_densenet121-fpn_7s_20e_deeplesion"


def test_lines_by_hand(make_zoo, entry) -> None:
    results = [{"Task": "Lesion Detection", "Dataset": "x", "Metrics": {"Avg@0.5-4 (paper)": 86.9, "Avg@0.5-4": 7}}]
    root = make_zoo(entry("a", b"x" * 1_500_000, "checkpoints", Results=results), entry("longer"))
    lines = format_models(load_index(root).values()).splitlines()
    assert lines[:3] == [
        "name    weights          paper  measured",
        "a       1.5 MB, shipped  86.90  7.00",
        "longer  -                -      -",
    ]
    assert lines[-2:] == ["with weights, for `mmpluld detect --model NAME`: 1 of 2", "  a (1.5 MB, shipped)"]
    first, second = as_records(load_index(root).values())
    assert first["size"] == 1_500_000
    assert [result["source"] for result in first["results"]] == ["paper", "measured"]
    assert (second["weights"], second["sha256"], second["results"]) == (None, None, [])


def test_no_models() -> None:
    assert format_models([]).splitlines()[0] == "name  weights  paper  measured"
    assert as_records([]) == []


@pytest.mark.parametrize("pattern", ["pluld-a3d_densenet121-fpn_7s_20e", "pluld-a3d_*_7s_20e_deeplesion", PAPER_ROW])
def test_patterns(pattern: str) -> None:
    assert PAPER_ROW in [model.name for model in select_models(pattern)]
    assert len(select_models(pattern)) < len(select_models())


def test_no_such_name() -> None:
    with pytest.raises(InputError, match="'a3d_densnet_7s': no model has such a name; did you mean"):
        select_models("a3d_densnet_7s")


def test_command(capsys: pytest.CaptureFixture) -> None:
    assert main(["models", PAPER_ROW]) == 0
    assert f"{PAPER_ROW}  -        86.90" in capsys.readouterr().out
    assert main(["models", "--json", PAPER_ROW]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["results"][0]["metrics"]["Sens@0.5"] == 79.74
    assert main(["models", "nothing-like-it"]) == 2
