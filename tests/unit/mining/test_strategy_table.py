"""The table of strategies says what is so: of commands, pages, files and of what each strategy does when it runs."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from mmpluld.errors import InputError
from mmpluld.mining.mine import mine_files
from mmpluld.mining.score import score_strategy
from mmpluld.mining.strategy_table import ORACLES, STRATEGIES

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_origins_are_those_that_files_may_have():
    schema = json.loads((files("mmpluld.structures") / "schemas/annotations.json").read_text(encoding="utf-8"))
    lesion = schema["definitions"]["lesion"]["properties"]
    origins = {"annotated", *(strategy.origin for strategy in STRATEGIES.values())}
    assert set(lesion["origin"]["enum"]) == origins
    assert set(lesion["attributes"]["properties"]["slice_origins"]["items"]["enum"]) == origins
    page = (DOCS / "explanation/conventions.md").read_text(encoding="utf-8")
    assert f"({', '.join(lesion['origin']['enum'])})" in " ".join(page.split())


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_page_describes_it(name):
    text = (DOCS / "how_to/mining.md").read_text(encoding="utf-8")
    (origin,) = re.findall(rf"^\| `{name}` \|.*\| (`\w+`.*?) \|$", text, flags=re.MULTILINE)
    strategy = STRATEGIES[name]
    assert (f"`{strategy.origin}`" in origin, "ignored" in origin) == (True, strategy.uncertain)
    (after,) = re.findall(r"^Recall counts .*?\n\n", text, flags=re.DOTALL | re.MULTILINE)
    assert f"`{name}`" in after


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="'unlabelled' is not a strategy of mining; .* did you mean 'unlabeled'"):
        mine_files("train.json", ["p"], strategies=["cross-slice", "unlabelled"])
    with pytest.raises(InputError, match=f"is not an oracle of mining; allowed are {', '.join(ORACLES)}"):
        mine_files("train.json", oracles=["distillation"], truth_file="truth.json")
    with pytest.raises(InputError, match="'mine' is not a strategy"):
        score_strategy("mine", None, None, None)
