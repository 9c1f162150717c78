"""Reading the index, and what is refused in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mmpluld.errors import InputError
from mmpluld.zoo.index import default_model, dump_metafile, get_model, load_index, load_metafile, zoo_root

RESULT = {"Task": "Lesion Detection", "Dataset": "DeepLesion", "Metrics": {"Sens@1": 80, "Avg@0.5-4": 70.5}}
PAPER = {
    "Task": "Lesion Detection",
    "Dataset": "DeepLesion",
    "Metrics": {"Sens@1 (paper)": 84.1, "Avg@0.5-4 (paper)": 86.9},
}


def test_entry_by_hand(make_zoo, entry) -> None:
    content = b"weights"
    root = make_zoo(entry("toy_a", content, "checkpoints", Results=[RESULT, PAPER]), entry("toy_b"))
    models = load_index(root)
    assert list(models) == ["toy_a", "toy_b"]
    model = models["toy_a"]
    assert model.shipped
    assert model.weights_url == str(root / model.weights)
    assert (model.size, len(model.sha256)) == (7, 64)
    assert [(r.source, dict(r.metrics), r.average) for r in model.results] == [
        ("paper", {"Sens@1": 84.1, "Avg@0.5-4": 86.9}, 86.9),
        ("measured", {"Sens@1": 80.0, "Avg@0.5-4": 70.5}, 70.5),
    ]


def test_a_result_of_both_sources_is_split(make_zoo, entry) -> None:
    both = {**RESULT, "Metrics": {"Sens@1 (paper)": 1, "Sens@1": 2}}
    (model,) = load_index(make_zoo(entry(Results=[both]))).values()
    assert [(r.paper, r.metrics["Sens@1"], r.average) for r in model.results] == [(True, 1.0, None), (False, 2.0, None)]


def test_model_without_weights(make_zoo, entry) -> None:
    (model,) = load_index(make_zoo(entry())).values()
    assert (model.weights, model.sha256, model.size, model.weights_text, model.shipped) == (None, "", 0, "", False)
    with pytest.raises(InputError, match="toy_3s_phantom: no weights are published; train them with `mmpluld train"):
        _ = model.weights_url


def test_default_is_the_one_that_is_marked(make_zoo, entry, monkeypatch) -> None:
    made = [entry(name, b"weights", "checkpoints") for name in ("toy_a", "toy_b", "toy_c")]
    made[1]["Metadata"]["Default"] = True
    root = make_zoo(*made)
    monkeypatch.setattr("mmpluld.zoo.index.zoo_root", lambda: root)
    assert default_model().name == "toy_b"
    assert default_model().weights_text == "0.0 MB, shipped, default"
    made[2]["Metadata"]["Default"] = True
    make_zoo(*made)
    with pytest.raises(InputError, match="the index marks toy_b, toy_c as default, needed is one model"):
        default_model()


def test_zoo_without_models(make_zoo) -> None:
    assert load_index(make_zoo()) == {}


def test_no_metafiles(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no configs/\\*/metafile.yml; install the package anew"):
        load_index(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Name": "../a"}, "a name is lower-case letters"),
        ({"Name": "Toy"}, "a name is lower-case letters"),
        ({"Config": None}, "'Config' is None, must be a str"),
        ({"Metadata": []}, r"'Metadata' is \[\], must be a dict"),
        ({"Weights": "checkpoints/a-00000000.pth"}, "Metadata.SHA256 is '', must be 64"),
        ({"Metadata": {"Default": True}}, "Metadata.Default is True, must be true, of a model with weights"),
        ({"Results": None}, "'Results' is None, must be a list"),
        ({"Results": [{"Dataset": "x"}]}, "a result needs 'Task', 'Dataset' and 'Metrics'"),
        ({"Results": [{**RESULT, "Metrics": {"Sens@1": "high"}}]}, "metric 'Sens@1' is 'high', must be a number"),
    ],
)
def test_bad_entry_is_named(make_zoo, entry, changes: dict, message: str) -> None:
    made = {**entry(), **changes}
    root = make_zoo({**made, "Name": "toy"})
    (root / "configs/toy/metafile.yml").write_text(yaml.safe_dump({"Collections": [], "Models": [made]}))
    with pytest.raises(InputError, match=message) as error:
        load_index(root)
    assert "metafile.yml: model" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Size": 0}, "Metadata.Size is 0"),
        ({"Size": "7"}, "Metadata.Size is '7'"),
        ({"SHA256": "0" * 64}, r"must end in -00000000\.zip"),
        ({"SHA256": "A" * 64}, "must be 64 lower-case"),
    ],
)
def test_weights_need_a_digest_and_a_size(make_zoo, entry, change: dict, message: str) -> None:
    made = entry("toy", b"weights", "checkpoints")
    made["Metadata"] |= change
    with pytest.raises(InputError, match=message):
        load_index(make_zoo(made))


def test_name_twice(make_zoo, entry) -> None:
    with pytest.raises(InputError, match="model 'toy' is listed twice"):
        load_index(make_zoo(entry("toy"), entry("toy")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not readable as YAML"),
        ("- a", "holds a list, not a mapping"),
        ("Models: []", "'Collections' must be a list"),
        (None, "no such file"),
    ],
)
def test_unreadable_metafile(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "metafile.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_metafile(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_dump_is_stable() -> None:
    content = {"Models": [{"Name": "ä", "Metadata": {"b": 1, "a": [1, 2]}}]}
    text = dump_metafile(content)
    assert yaml.safe_load(text) == content
    assert dump_metafile(yaml.safe_load(text)) == text


def test_own_index() -> None:
    assert (zoo_root() / "configs").is_dir()
    model = get_model("a3d_densenet121-fpn_7s_20e_deeplesion")
    assert model.collection == "A3D"
    assert (model.root / model.config).is_file()
    with pytest.raises(InputError, match="is no model of the zoo; did you mean 'a3d_densenet121-fpn_7s_phantom'"):
        get_model("a3d_densenet121-fpn_7s_phantm")
    with pytest.raises(InputError, match="'qqq' is no model of the zoo; `mmpluld models` lists them"):
        get_model("qqq")
