"""Publishing: weights only, the same bytes, a card that says what matters, an entry that the index accepts."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.registry import DefaultScope

from mmpluld.cli.main import main
from mmpluld.engine.bundle_config import bundle_config
from mmpluld.engine.checkpoint import load_checkpoint_safely, load_weights
from mmpluld.engine.config import find_config, load_config
from mmpluld.engine.config_digest import CONFIG_SHA256, config_digest
from mmpluld.errors import InputError
from mmpluld.evaluation.operating_points import OperatingPoints, measure_operating_points
from mmpluld.inference.settings import DetectionSettings
from mmpluld.publish.publish import Validation, metafile_entry, publish, served_from, update_metafile
from mmpluld.registry import MODELS
from mmpluld.structures import DetectionSet
from mmpluld.structures.model_line import ModelLine, RescoringLine
from mmpluld.zoo.bundle import Bundle
from mmpluld.zoo.download import DownloadError
from mmpluld.zoo.index import PAPER, dump_metafile, load_index

ROOT = Path(__file__).resolve().parents[3]
NAME = "retinanet-a3d_densenet121-fpn_7s_phantom"  # the smallest twin
METRICS = {
    "protocol": "deeplesion-2d",
    "mode": "compat",
    "per": "image",
    "levels": [0.5, 1, 2, 4, 8, 16],
    "sensitivity": [0.5, 0.6, 0.7, 0.8, 0.85, 0.9],
    "headline_levels": [0.5, 1, 2, 4],
    "average": 0.65,
    "num_images": 104,
    "num_patients": 24,
    "num_lesions": 250,
    "interval": {"sensitivity": [[0.4, 0.61234], *[[0.5, 0.95]] * 4, [None, None]], "average": [0.6, 0.7]},
}


def build() -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope("mmpluld"):
        return MODELS.build(load_config(find_config(NAME)).model)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training leaves: weights, optimiser, log histories, and a note that must not get out."""
    torch.manual_seed(0)
    model = build()
    path = tmp_path_factory.mktemp("run") / "epoch_3.pth"
    content = {
        "state_dict": {f"module.{key}": value for key, value in model.state_dict().items()},
        "ema_state_dict": {key: value.clone() for key, value in model.state_dict().items()},
        "optimizer": {"state": {0: torch.zeros(1000)}},
        "message_hub": {"log_scalars": {}},
        "meta": {"epoch": 3, "cfg": "secret_path = 'home'", "time": "now"},
    }
    torch.save(content, path)
    return path


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(METRICS))
    return path


def test_round_trip(trained: Path, tmp_path: Path) -> None:
    published = publish(trained, tmp_path, NAME, data="Phantom")
    assert published.sha256 == hashlib.sha256(published.bundle.read_bytes()).hexdigest()
    assert published.bundle.name == f"{NAME}-{published.sha256[:8]}.zip"
    assert published.size == published.bundle.stat().st_size < trained.stat().st_size / 1.9
    content = load_checkpoint_safely(published.bundle)
    assert set(content) == {"meta", "state_dict"}
    assert content["meta"]["name"] == NAME
    assert bundle_config(Bundle.open(published.bundle)).model == load_config(NAME).model
    assert content["meta"]["checkpoint_sha256"] == hashlib.sha256(trained.read_bytes()).hexdigest()
    assert content["meta"]["epoch"] == 3
    assert content["meta"]["intended_use"] == "research only; not for diagnosis"
    assert b"secret_path" not in published.bundle.read_bytes()
    model = build()
    load_weights(model, published.bundle)
    source = load_checkpoint_safely(trained)["state_dict"]
    assert all(torch.equal(value, source[f"module.{key}"]) for key, value in model.state_dict().items())


def test_published_file_can_be_published(trained: Path, tmp_path: Path) -> None:
    first = publish(trained, tmp_path / "a", NAME, data="Phantom")
    again = publish(first.bundle, tmp_path / "b", NAME, data="Phantom")
    states = [load_checkpoint_safely(published.bundle)["state_dict"] for published in (first, again)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_weights_of_other_settings_than_the_zoos(trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained, weights_only=False)
    content["meta"][CONFIG_SHA256] = "0" * 64
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(InputError, match=rf"own.pth: was trained with other settings than {NAME} has"):
        publish(tmp_path / "own.pth", tmp_path / "zoo", NAME, data="Phantom")
    assert not (tmp_path / "zoo").exists()
    publish(tmp_path / "own.pth", tmp_path / "zoo", NAME, data="Phantom", config=NAME)


def test_half_precision_halves_the_size(trained: Path, tmp_path: Path) -> None:
    full = publish(trained, tmp_path, NAME, data="Phantom")
    half = publish(trained, tmp_path, NAME, data="Phantom", half=True)
    assert half.size < 0.6 * full.size
    model, reference = build(), build()
    load_weights(model, half.bundle)
    load_weights(reference, full.bundle)
    assert all(value.dtype != torch.float16 for value in model.state_dict().values())
    for key, value in reference.state_dict().items():
        limit = 2**-11 if value.dim() >= 2 else 0
        torch.testing.assert_close(model.state_dict()[key], value, rtol=limit, atol=1e-7 if limit else 0)
    assert "half precision" in half.card.read_text()


def test_value_beyond_half_precision(trained: Path, tmp_path: Path) -> None:
    content = load_checkpoint_safely(trained)
    key = next(key for key, value in content["state_dict"].items() if value.dim() == 4)
    content["state_dict"][key].view(-1)[0] = 1e6
    torch.save(content, tmp_path / "big.pth")
    with pytest.raises(InputError, match=r"big\.pth: .* has values beyond half precision; publish without --half"):
        publish(tmp_path / "big.pth", tmp_path / "out", NAME, data="Phantom", half=True)


def test_weights_of_another_model(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights of another model"):
        publish(trained, tmp_path / "out", "a3d_densenet121-fpn_7s_phantom", data="Phantom")
    assert not (tmp_path / "out").exists()


def test_card(trained: Path, tmp_path: Path, metrics: Path) -> None:
    published = publish(trained, tmp_path, NAME, data="40 synthetic scans.", metrics=metrics, licence="CC0-1.0")
    text = published.card.read_text()
    for words in (
        f"# {NAME}\n",
        published.sha256,
        published.bundle.name,
        "CC0-1.0",
        "Data: 40 synthetic scans.\n",
        f"`mmpluld train {NAME}` (epoch 3);",
        "not for diagnosis",
        "`deeplesion-2d` (compat rules): 104 images of\n24 patients, 250 lesions. Intervals: 95 %",
        "| 0.5 | 50.00 | 40.00 to 61.23 |\n",
        "| 16 | 90.00 |  |\n",
        "| mean over 0.5, 1, 2, 4 | 65.00 | 60.00 to 70.00 |\n",
        "It has never seen a patient",
        "## Intended use",
    ):
        assert words in text
    assert "{{" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_card_without_figures(trained: Path, tmp_path: Path) -> None:
    assert "None were measured." in publish(trained, tmp_path, NAME, data="Phantom").card.read_text()
    metrics = tmp_path / "result.json"
    metrics.write_text(json.dumps({key: value for key, value in METRICS.items() if key != "interval"}))
    text = publish(trained, tmp_path, NAME, data="Phantom", metrics=metrics).card.read_text()
    assert "24 patients, 250 lesions.\n" in text and "Intervals" not in text


def test_operating_points_of_validation_patients(trained: Path, tmp_path: Path, validation) -> None:
    found, truth = validation
    published = publish(trained, tmp_path, NAME, data="Phantom", validation=Validation(found, truth))
    bundle = Bundle.open(published.bundle)
    points = OperatingPoints.parse(bundle.json("operating_points.json"), "here")
    assert points == measure_operating_points(found, truth, "lens-3d")
    text = published.card.read_text()
    assert "4 validation volumes of 4 patients with\n8 lesions, by protocol `lens-3d`" in text
    assert "| 1 | 0.7 | 50.00 |\n" in text
    assert "| 0.9 to 1.0 | 4 | 1.00 | 1.00 to 1.00 |\n" in text
    picture = published.bundle.with_suffix(".png")
    assert f"]({picture.name})" in text
    assert picture.read_bytes() == bundle.read("reliability.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "](reliability.png)" in bundle.read("card.md").decode()
    again = publish(trained, tmp_path / "again", NAME, data="Phantom", validation=Validation(found, truth))
    assert again.bundle.read_bytes() == published.bundle.read_bytes()
    chosen = Validation(found, truth, default_rate=0.25)
    with_default = publish(trained, tmp_path, NAME, data="Phantom", validation=chosen)
    stored = OperatingPoints.parse(Bundle.open(with_default.bundle).json("operating_points.json"), "here")
    assert stored == replace(points, default_rate=0.25)
    assert "Without it and `--score-thr`, the point of 0.25 is\ntaken." in with_default.card.read_text()
    with pytest.raises(InputError, match="allowed are 0.25 to 1.5"):
        publish(trained, tmp_path, NAME, data="Phantom", validation=Validation(found, truth, default_rate=3))
    record = DetectionSet.load(found)
    for volume in record.volumes.values():
        volume.history = [ModelLine.text("another", "0" * 64, "w.pth", "0" * 64)]
    record.save(tmp_path / "others.json")
    with pytest.raises(InputError, match=f"holds detections of another, whose scores are others; give those of {NAME}"):
        publish(trained, tmp_path, NAME, data="Phantom", validation=Validation(tmp_path / "others.json", truth))

    for line, message in (
        (str(RescoringLine("alone", "net")), "made with false-positive reduction: alone, the bundle's is none"),
        (
            DetectionSettings(max_gap=2).describe(),
            r"max_gap 2, the bundle links 0.05 or more, linked at IoU above 0.5;",
        ),
        (ModelLine.text(NAME, "c0" * 32, "w.pth", "0" * 64), "made with other settings of the config"),
    ):
        for volume in record.volumes.values():
            volume.history = [line]
        record.save(tmp_path / "otherwise.json")
        with pytest.raises(InputError, match=message):
            publish(trained, tmp_path, NAME, data="Phantom", validation=Validation(tmp_path / "otherwise.json", truth))
    for volume in record.volumes.values():
        own = ModelLine.text(NAME, config_digest(load_config(NAME)), "w.pth", "0" * 64)
        volume.history = [own, DetectionSettings(score_thr=0.1).describe()]
    record.save(tmp_path / "own.json")
    publish(trained, tmp_path, NAME, data="Phantom", validation=Validation(tmp_path / "own.json", truth))


def test_config_of_ones_own_classes(trained: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.py"
    config.write_text(
        f'_base_ = "mmpluld::a3d/{NAME.replace("7s_phantom", "7s_20e_deeplesion")}.py"\nmodel = dict(type="x.Y")\n'
    )
    with pytest.raises(InputError, match=r"mine|x\.Y"):
        publish(trained, tmp_path / "out", NAME, data="Phantom", config=config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "lacks 'protocol'"),
        ("{", "not valid JSON"),
        ("3", "holds a int, not an object"),
        (None, "cannot be read .no such file"),
    ],
)
def test_bad_metrics(trained: Path, tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "result.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=rf"result\.json: {message}"):
        publish(trained, tmp_path / "out", NAME, data="Phantom", metrics=path)


def test_entry_goes_into_the_index(trained: Path, make_zoo, entry, metrics: Path) -> None:
    old = {"Task": "Lesion Detection", "Dataset": "Phantom", "Metrics": {"Sens@1": 1.0}}
    paper = {"Task": "Lesion Detection", "Dataset": "DeepLesion", "Metrics": {f"Sens@1{PAPER}": 84.0}}
    root = make_zoo(entry(NAME, Results=[paper, old]), entry("other"))
    published = publish(trained, root / "checkpoints", NAME, data="Phantom", metrics=metrics)
    update_metafile(root / "configs/toy/metafile.yml", metafile_entry(published, "checkpoints"))
    models = load_index(root)
    model = models[NAME]
    assert Path(model.weights_url) == published.bundle
    assert (model.sha256, model.size, model.metadata["Slices"]) == (published.sha256, published.size, 3)
    assert [(r.source, r.dataset, r.metrics["Sens@1"]) for r in model.results] == [
        ("paper", "DeepLesion", 84.0),
        ("measured", "Phantom", 60.0),
    ]
    assert model.results[1].average == 65.0
    assert models["other"].weights is None
    with pytest.raises(InputError, match="no model 'x'; run tools/model_zoo.py"):
        update_metafile(root / "configs/toy/metafile.yml", {"Name": "x"})


def test_tool_writes_the_same_bytes_in_another_process(trained: Path, tmp_path: Path) -> None:
    here = publish(trained, tmp_path / "here", NAME, data="Phantom")
    moved = tmp_path / "moved.pth"
    moved.write_bytes(trained.read_bytes())
    command = [sys.executable, str(ROOT / "tools/publish_model.py"), str(moved), str(tmp_path / "there")]
    command += ["--name", NAME, "--data", "Phantom."]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    first, card, *snippet = done.stdout.splitlines()
    assert Path(first.split()[0]).read_bytes() == here.bundle.read_bytes()
    assert Path(card).read_text() == here.card.read_text()
    (entry,) = yaml.safe_load("\n".join(snippet))["Models"]
    assert entry == metafile_entry(here, "checkpoints")
    assert dump_metafile({"Models": [entry]}) == "\n".join(snippet) + "\n"


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit status of tools/publish_model.py for the model and data of these tests."""
    tool = str(ROOT / "tools/publish_model.py")
    monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments), "--name", NAME, "--data", "Phantom"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(tool, run_name="__main__")
    return stop.value.code


def test_tool_reports_bad_input_in_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    assert run_tool(monkeypatch, "none.pth", tmp_path) == 2
    assert capsys.readouterr().err == "publish_model: error: none.pth: no such checkpoint\n"


def test_tool_writes_nothing_for_a_model_that_the_metafile_lacks(
    trained: Path, make_zoo, entry, tmp_path: Path, monkeypatch, capsys
) -> None:
    metafile = make_zoo(entry("other")) / "configs/toy/metafile.yml"
    assert run_tool(monkeypatch, trained, tmp_path / "www", "--base-url", "http://x", "--metafile", metafile) == 2
    assert f"no model {NAME!r}; run tools/model_zoo.py" in capsys.readouterr().err
    assert not (tmp_path / "www").exists()


@pytest.mark.parametrize(
    "url", ["checkpoints", "ftp://example.org/a", "https://", "file:///srv/www", "https://example.org/a?b=1"]
)
def test_address_that_no_web_server_has(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="give the http\\(s\\) address of the folder") as error:
        served_from(tmp_path, url)
    assert url in str(error.value)


def test_shipped_weights_are_written_where_the_package_takes_them_from(tmp_path: Path) -> None:
    metafile = tmp_path / "configs/toy/metafile.yml"
    assert served_from(tmp_path / "checkpoints", metafile=metafile) == "checkpoints"
    assert served_from("anywhere") == "checkpoints"  # the entry is printed, and is copied by hand
    assert served_from("anywhere", "https://example.org/a/", metafile) == "https://example.org/a"
    with pytest.raises(
        InputError, match=r"out: shipped weights lie in .*/checkpoints; write there, or give --base-url"
    ):
        served_from(tmp_path / "out", metafile=metafile)


@pytest.fixture
def web_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder that an ordinary web server on the loopback interface serves, and its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "www"
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_address[1]}/www/"
        http.shutdown()
        thread.join()


def test_published_to_a_web_server_and_fetched_from_it(
    trained: Path, make_zoo, entry, web_folder: tuple[Path, str], tmp_path: Path, monkeypatch, capsys
) -> None:
    folder, url = web_folder
    root = make_zoo(entry(NAME))
    monkeypatch.setattr("mmpluld.zoo.index.zoo_root", lambda: root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    metafile = root / "configs/toy/metafile.yml"
    assert run_tool(monkeypatch, trained, folder, "--base-url", url, "--metafile", metafile) == 0
    (weights,) = folder.glob("*.zip")
    content = weights.read_bytes()
    model = load_index()[NAME]
    assert model.weights_url == url + weights.name
    assert (model.sha256, model.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert weights.with_suffix(".md").is_file()

    assert main(["download", NAME, "--dest", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / weights.name).read_bytes() == content
    fetched = build()
    load_weights(fetched, f"zoo:{NAME}")
    source = load_checkpoint_safely(trained)["state_dict"]
    assert all(torch.equal(value, source[f"module.{key}"]) for key, value in fetched.state_dict().items())

    weights.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    capsys.readouterr()
    assert main(["download", NAME, "--dest", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert f"is not the expected {model.sha256}; removed" in error
    assert list((tmp_path / "new").iterdir()) == []
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(DownloadError, match="is not the expected"):
        load_weights(build(), f"zoo:{NAME}")
