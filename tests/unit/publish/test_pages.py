"""The pages and entries that are written from configs and metafiles."""

from __future__ import annotations

import pytest
import yaml

from mmpluld.errors import InputError
from mmpluld.publish.pages import complete_metafiles, format_page, model_table, write_pages
from mmpluld.zoo.index import load_index

MARKS = "<!-- models: written by tools/model_zoo.py -->\n<!-- end of models -->\n"


def test_table_by_hand(make_zoo, entry) -> None:
    result = {"Task": "Lesion Detection", "Dataset": "x", "Metrics": {"Sens@0.5 (paper)": 78.5, "Avg@0.5-4": 7}}
    root = make_zoo(entry("a", b"x" * 40_000, "https://example.org", Results=[result]), entry("b"))
    weights = load_index(root)["a"].weights
    assert model_table(load_index(root).values(), "../").splitlines() == [
        "| model | from | 0.5 | 1 | 2 | 4 | 8 | 16 | 0.5-4 | weights |",
        "|---|---|---|---|---|---|---|---|---|---|",
        f"| [`a`](../configs/toy/a.py) | paper | 78.50 |  |  |  |  |  |  | [0.0 MB]({weights}) |",
        f"| [`a`](../configs/toy/a.py) | measured |  |  |  |  |  |  | 7.00 | [0.0 MB]({weights}) |",
        "| [`b`](../configs/toy/b.py) |  |  |  |  |  |  |  |  |  |",
    ]


def test_figures_per_volume_have_a_table_of_their_own(make_zoo, entry) -> None:
    image = {"Task": "Lesion Detection", "Dataset": "x", "Metrics": {"Avg@0.5-4": 7}}
    volume = {"Task": "Lesion Detection", "Dataset": "x", "Metrics": {"Sens3D@0.125": 2, "Avg3D@0.125-8 (paper)": 36.8}}
    root = make_zoo(entry("a", Results=[image]), entry("b", Results=[volume]), entry("c"))
    models = load_index(root)
    first, second = model_table(models.values(), "").split("\n\n")
    assert [line[:8] for line in first.splitlines()[2:]] == ["| [`a`](", "| [`c`]("]
    assert second.splitlines() == [
        "| model (false positives per volume) | from | 0.125 | 0.25 | 0.5 | 1 | 2 | 4 | 8 | 0.125-8 | weights |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        "| [`b`](configs/toy/b.py) | paper |  |  |  |  |  |  |  | 36.80 |  |",
        "| [`b`](configs/toy/b.py) | measured | 2.00 |  |  |  |  |  |  |  |  |",
    ]
    alone = model_table([models["b"], models["c"]], "").splitlines()
    assert [line[:8] for line in alone] == ["| model ", "|---|---", "| [`b`](", "| [`b`](", "| [`c`]("]


@pytest.mark.parametrize("name", load_index())
def test_measured_figures_are_shown(name: str) -> None:
    model = load_index()[name]
    rows = [line for line in model_table([model], "").splitlines() if f"`{name}`" in line]
    for result, row in zip(model.results, rows, strict=bool(model.results)):
        cells = [cell.strip() for cell in row.split("|")[3:-2]]
        assert cells[-1] == ("" if result.average is None else f"{result.average:.2f}")
        assert len([cell for cell in cells if cell]) == len(result.metrics)


def test_zoo_without_models(make_zoo) -> None:
    assert "##" not in format_page(make_zoo())
    assert len(model_table([], "").splitlines()) == 2


def test_pages_are_written_once(make_zoo, entry) -> None:
    root = make_zoo(entry("a"), entry("b", b"x", "checkpoints"))
    assert "With weights:\n\n- [`b`](../configs/toy/b.py): 0.0 MB, shipped\n\n## [Toy]" in format_page(root)
    readme = root / "configs/toy/README.md"
    readme.write_text(f"# Toy\n\n{MARKS}\nThe end.\n")
    assert write_pages(root) == [root / "docs/model_zoo.md", readme]
    assert "## [Toy](../configs/toy/README.md)" in (root / "docs/model_zoo.md").read_text()
    text = readme.read_text()
    assert text.startswith("# Toy\n")
    assert text.endswith("<!-- end of models -->\n\nThe end.\n")
    assert "(../../configs/toy/a.py)" in text
    assert write_pages(root) == []


@pytest.mark.parametrize("text", [None, "# Toy\n", MARKS.splitlines()[0]])
def test_readme_without_a_place_for_the_table(make_zoo, entry, text: str | None) -> None:
    root = make_zoo(entry())
    if text is not None:
        (root / "configs/toy/README.md").write_text(text)
    with pytest.raises(InputError, match="README.md: lacks the lines"):
        write_pages(root)
    assert not (root / "docs").exists()


def test_entries_follow_the_configs(make_zoo, entry) -> None:
    measured = {"Task": "Lesion Detection", "Dataset": "x", "Metrics": {"Sens@1": 5.0}}
    name = "a3d_densenet121-fpn_7s_20e_deeplesion"
    root = make_zoo(entry("gone"), entry("kept", b"x", "checkpoints", Results=[measured]), entry(name))
    (root / "configs/toy/gone.py").unlink()
    (root / "configs/toy/new.py").write_text(
        "test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadSliceStack', num_slices=9)]))\n"
    )
    metafile = root / "configs/toy/metafile.yml"
    assert complete_metafiles(root) == [metafile, root / "model-index.yml"]
    models = load_index(root)
    assert list(models) == [name, "kept", "new"]
    assert models["kept"].weights
    assert [result.metrics for result in models["kept"].results] == [{"Sens@1": 5.0}]
    assert models["new"].metadata == {"Slices": 9}
    assert models["new"].collection == "Toy"
    (paper,) = models[name].results
    assert (paper.source, paper.metrics["Sens@0.5"], paper.average) == ("paper", 78.52, 86.08)
    assert complete_metafiles(root) == []


def test_converted_weights_have_no_epochs(make_zoo, entry) -> None:
    root = make_zoo(entry("legacy-toy_3s_deeplesion"), entry("toy_3s_deeplesion"))
    complete_metafiles(root)
    found = {name: model.metadata for name, model in load_index(root).items()}
    assert found == {"legacy-toy_3s_deeplesion": {"Slices": 3}, "toy_3s_deeplesion": {"Slices": 3, "Epochs": 2}}


def test_folder_without_metafile(make_zoo, entry) -> None:
    root = make_zoo(entry())
    (root / "configs/other").mkdir()
    (root / "configs/other/b.py").write_text("")
    with pytest.raises(InputError, match=r"other/metafile.yml: cannot be read \(no such file\)"):
        complete_metafiles(root)


def test_index_lists_the_metafiles(make_zoo, entry) -> None:
    root = make_zoo(entry())
    complete_metafiles(root)
    assert yaml.safe_load((root / "model-index.yml").read_text()) == {"Import": ["configs/toy/metafile.yml"]}
