"""Safe reading, strict loading and atomic writing of checkpoints."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import nn

from mmpluld.engine.checkpoint import AtomicLocalBackend, checkpoint_bytes, load_checkpoint_safely, load_weights
from mmpluld.errors import InputError
from mmpluld.zoo.bundle import bundle_bytes


class Intruder:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch intruded",)


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


class TestReading:
    def test_what_mmengine_writes(self, tmp_path: Path) -> None:
        history = HistoryBuffer([1.0, 2.0], [1, 1])
        content = {
            "state_dict": {"weight": torch.arange(3.0)},
            "message_hub": {"log_scalars": {"loss": history}, "runtime_info": {"best": np.float32(0.5)}},
            "meta": {"classes": ("lesion",), "palette": np.arange(3), "seed": 3},
        }
        loaded = load_checkpoint_safely(save(tmp_path / "a.pth", content))
        assert torch.equal(loaded["state_dict"]["weight"], torch.arange(3.0))
        assert loaded["message_hub"]["log_scalars"]["loss"].mean() == 1.5
        assert loaded["message_hub"]["runtime_info"]["best"] == np.float32(0.5)
        assert loaded["meta"]["palette"].tolist() == [0, 1, 2]

    def test_code_is_refused_and_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        path = save(tmp_path / "a.pth", {"state_dict": {}, "meta": Intruder()})
        with pytest.raises(InputError, match=r"a\.pth: refused, because reading it would run '\w+\.system'") as error:
            load_checkpoint_safely(path)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "intruded").exists()

    def test_mmengine_reads_local_files_the_same_way(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.pth", {"meta": Intruder()})
        with pytest.raises(InputError, match="refused"):
            CheckpointLoader.load_checkpoint(str(path), map_location="cpu")

    @pytest.mark.parametrize("keep", [0, 10, 500])
    def test_truncated(self, tmp_path: Path, keep: int) -> None:
        path = save(tmp_path / "a.pth", {"state_dict": {"weight": torch.zeros(1000)}})
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(InputError, match=r"a\.pth: not a checkpoint, or (truncated|damaged)"):
            load_checkpoint_safely(path)

    def test_missing_and_of_another_kind(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such checkpoint"):
            load_checkpoint_safely(tmp_path / "a.pth")
        with pytest.raises(InputError, match="holds a Tensor; a checkpoint is a dict"):
            load_checkpoint_safely(save(tmp_path / "a.pth", torch.zeros(1)))

    def test_text_is_no_checkpoint(self, tmp_path: Path) -> None:
        (tmp_path / "a.pth").write_text("root:x:0")  # the first letter asks a pickle for an empty stack
        with pytest.raises(InputError, match=r"a\.pth: not a checkpoint, or truncated"):
            load_checkpoint_safely(tmp_path / "a.pth")

    @pytest.mark.parametrize("content", [{"state_dict": [1]}, {"state_dict": {1: torch.ones(1)}}, {2: torch.ones(1)}])
    def test_weights_without_names(self, content: dict, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"a\.pth: holds no state_dict of tensors by name"):
            load_weights(torch.nn.Linear(1, 1), save(tmp_path / "a.pth", content))


class TestSoundness:
    def test_no_flipped_byte_of_a_tensor_passes(self, tmp_path: Path) -> None:
        """Nor of the description of the content; a flip in padding or a date changes nothing that is read."""
        content = {"state_dict": {"weight": torch.arange(40.0)}, "meta": {"epoch": 2}}
        whole = save(tmp_path / "a.pth", content).read_bytes()
        refused = 0
        for at in range(0, len(whole), 11):
            (tmp_path / "a.pth").write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
            try:
                loaded = load_checkpoint_safely(tmp_path / "a.pth")
            except InputError as error:
                assert str(error).startswith(f"{tmp_path / 'a.pth'}: not a checkpoint, or ")
                assert "\n" not in str(error)
                refused += 1
            else:
                assert torch.equal(loaded["state_dict"]["weight"], content["state_dict"]["weight"])
                assert loaded["meta"] == content["meta"]
        assert refused > 70

    def test_damage_names_the_record(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.pth", {"state_dict": {"weight": torch.arange(40.0)}})
        data = bytearray(path.read_bytes())
        data[data.index(torch.arange(40.0).numpy().tobytes()) + 80] ^= 1
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.pth: .*damaged \(the check sum of its record a/data/0 is wrong\)"):
            load_checkpoint_safely(path)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_no_numbers(self, tmp_path: Path, value: float) -> None:
        weights = nn.Linear(2, 3).state_dict()
        weights["bias"][1] = value
        broken = {"bias": "", "state_dict.bias": "state_dict", "optimizer.state.0": "optimizer"}
        for named, place in broken.items():
            content = {place: weights} if place == "state_dict" else weights
            content = {"state_dict": {}, "optimizer": {"state": [weights["bias"]]}} if place == "optimizer" else content
            path = save(tmp_path / "a.pth", content)
            for load in (load_checkpoint_safely, lambda path: CheckpointLoader.load_checkpoint(str(path))):
                with pytest.raises(InputError, match=rf"a\.pth: 1 of its tensors hold NaN or infinity \({named}\)"):
                    load(path)
        model = nn.Linear(2, 3)
        before = model.weight.clone()
        with pytest.raises(InputError, match="take an earlier checkpoint"):
            load_weights(model, save(tmp_path / "a.pth", weights))
        assert torch.equal(model.weight, before)

    def test_metrics_may_be_nan(self, tmp_path: Path) -> None:
        content = {"state_dict": {}, "message_hub": {"best": torch.tensor(float("nan"))}, "meta": {"x": float("nan")}}
        assert load_checkpoint_safely(save(tmp_path / "a.pth", content)).keys() == content.keys()

    def test_the_form_before_torch_1_6_is_read(self, tmp_path: Path) -> None:
        torch.save({"weight": torch.ones(3)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
        assert torch.equal(load_checkpoint_safely(tmp_path / "a.pth")["weight"], torch.ones(3))
        torch.save({"w": torch.tensor([float("nan")])}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
        with pytest.raises(InputError, match=r"hold NaN or infinity \(w\)"):
            load_checkpoint_safely(tmp_path / "a.pth")

    def test_packed_records_are_none_of_torch(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", bytes(10**6))
        with pytest.raises(InputError, match=r"its record a/data\.pkl is"):
            load_checkpoint_safely(tmp_path / "a.pth")


class TestBytes:
    def test_same_bytes_for_the_same_content_and_readable(self, tmp_path: Path) -> None:
        content = {"state_dict": {"weight": torch.arange(3.0)}, "meta": {"epoch": 2}}
        paths = [tmp_path / name for name in ("a.pth", "another_name.pth")]
        for path in paths:
            path.write_bytes(checkpoint_bytes({**content}))
            assert load_checkpoint_safely(path)["meta"] == {"epoch": 2}
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert paths[0].read_bytes() != checkpoint_bytes({**content, "meta": {"epoch": 3}})

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.pth").write_bytes(checkpoint_bytes({}))
        assert load_checkpoint_safely(tmp_path / "a.pth") == {}


class TestLoadWeights:
    def test_with_and_without_wrapping(self, tmp_path: Path) -> None:
        weights = nn.Linear(2, 3).state_dict()
        for content in (weights, {"state_dict": {f"module.{key}": value for key, value in weights.items()}}):
            model = nn.Linear(2, 3)
            load_weights(model, save(tmp_path / "a.pth", content))
            assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())

    def test_another_model(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.pth", {"state_dict": {"weight": torch.zeros(3, 5), "scale": torch.zeros(1)}})
        model = nn.Linear(2, 3)
        before = model.weight.clone()
        with pytest.raises(InputError) as error:
            load_weights(model, path)
        text = str(error.value)
        assert "of 2 tensors" in text
        assert "1 missing (first: bias)" in text
        assert "1 unexpected (first: scale)" in text
        assert "1 of another shape (first: weight)" in text
        assert torch.equal(model.weight, before)

    def test_another_model_than_the_one_that_was_trained(self, tmp_path: Path) -> None:
        """The config that belongs to the weights is named, and its copy where there is one."""

        def told(meta: dict) -> str:
            path = save(tmp_path / "a.pth", {"state_dict": {}, "meta": meta})
            with pytest.raises(InputError) as error:
                load_weights(nn.Linear(2, 3), path)
            return str(error.value).partition("trained with")[2]

        assert told({}) == told({"name": 3}) == ""
        assert told({"experiment_name": "mine_20260102_030405"}) == ", mine"
        twin = ", b_phantom, or add --twin to that of full size"
        assert told({"name": "b_phantom"}) == told({"experiment_name": "b_phantom_20260102_030405"}) == twin
        (tmp_path / "b_phantom.py").touch()
        assert f"(its own is {tmp_path / 'b_phantom.py'}), or add --twin" in told({"name": "b_phantom"})


class TestAtomicBackend:
    def test_put_replaces_whole_files(self, tmp_path: Path) -> None:
        backend, path = AtomicLocalBackend(), tmp_path / "folder" / "a.bin"
        backend.put(b"one", path)
        backend.put(b"two", path)
        assert path.read_bytes() == b"two"
        assert [entry.name for entry in path.parent.iterdir()] == ["a.bin"]
        backend.put_text("three", path)
        assert path.read_text() == "three"

    def test_removals_wait_for_the_replacement(self, tmp_path: Path) -> None:
        backend, old = AtomicLocalBackend(), tmp_path / "old"
        old.touch()
        with pytest.raises(RuntimeError), backend.removals_last():
            backend.remove(old)
            raise RuntimeError
        assert old.exists()
        with backend.removals_last():
            backend.remove(old)
            assert old.exists()
        assert not old.exists()
        old.touch()
        backend.remove(old)
        assert not old.exists()

    def test_what_replaces_a_removed_file_of_the_same_name_stays(self, tmp_path: Path) -> None:
        backend, path = AtomicLocalBackend(), tmp_path / "best.pth"
        path.write_bytes(b"old")
        with backend.removals_last():
            backend.remove(path)
            AtomicLocalBackend().put(b"new", path)  # mmengine takes another backend for each
        assert path.read_bytes() == b"new"


def test_a_text_is_no_checkpoint_that_runs_code(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text('custom_imports = dict(imports=["mine"])\ndefault_scope = "mmpluld"\n')  # c begins a global
    with pytest.raises(InputError, match=r"config\.py: not a checkpoint, or damaged"):
        load_checkpoint_safely(path)


def test_a_damaged_bundle_is_told_in_one_message(tmp_path: Path) -> None:
    path = tmp_path / "toy.zip"
    content = {"card.md": b"# toy", "config.json": b"{}", "weights.safetensors": b"w" * 100}
    path.write_bytes(bundle_bytes("toy", {}, content).replace(b"w" * 100, b"w" * 50 + b"v" * 50))
    with pytest.raises(InputError, match=r"toy.zip: is no whole bundle \(.*\); fetch it again with") as error:
        load_checkpoint_safely(path)
    assert str(error.value).count(str(path)) == str(error.value).count("; ") == 1
    path.write_bytes(bundle_bytes("toy", {}, content))
    with pytest.raises(InputError, match=r"toy.zip: its weights.safetensors is damaged \(.*\); fetch the bundle again"):
        load_checkpoint_safely(path)


def test_getattr_serves_log_histories_only(tmp_path: Path) -> None:
    class Reach:
        def __reduce__(self) -> tuple:
            return getattr, (HistoryBuffer, "__subclasses__")

    with pytest.raises(InputError, match=r"refused, because reading it would run 'builtins\.getattr'"):
        load_checkpoint_safely(save(tmp_path / "a.pth", {"meta": Reach()}))
