from __future__ import annotations

from pathlib import Path

import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.phantom import REGIONS_MM, PhantomSpec
from mmpluld.structures import LESION_TYPES


def test_defaults_are_valid_and_regions_are_known() -> None:
    assert set(PhantomSpec().regions) <= set(REGIONS_MM)
    assert list(LESION_TYPES) == list(range(1, 9))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 8}, r"phantom size=8: must be a whole number from 32 to 1024"),
        ({"mark_prob": 1.5}, r"phantom mark_prob=1\.5: must be from 0 to 1"),
        ({"regions": ("chset",)}, r"'chset' is none of .*did you mean 'chest'\?"),
        ({"regions": ()}, r"at least one region"),
        ({"noise_hu": (5.0, 1.0)}, r"noise_hu=\(5\.0, 1\.0\)"),
        ({"intervals_mm": (0.1,)}, r"intervals_mm"),
        ({"size": 64.5}, r"phantom size=64.5: must be a whole number"),
        (
            {"size": 64, "noise_hu": (1, 2, 3)},
            r"noise_hu=\(1, 2, 3\): has the wrong type; needed is one like \(9",
        ),
        (
            {"size": 64, "mark_prob": "nan"},
            r"mark_prob='nan': has the wrong type; needed is one like 0\.5, the",
        ),
        ({"regions": "chest"}, r"regions='chest': must be a list of names; write regions=\['chest'\]"),
        ({"phases": "portal"}, r"phases='portal': must be a list of names"),
        ({"lesion_mix": ("lung",)}, r"lesion_mix=\('lung',\): must be weights by type"),
        ({"lesion_mix": []}, r"lesion_mix=\[\]: must be weights by type"),
        ({"lesion_mix": {"lung": float("inf")}}, r"lesion_mix=\{'lung': inf\}: must be finite weights"),
        ({"lesion_mix": {"lung": float("nan")}}, r"lesion_mix=\{'lung': nan\}: must be finite weights"),
        ({"lesion_mix": {"lungs": 1}}, r"'lungs' is none of .*did you mean 'lung'\?"),
        ({"mark_bias": float("nan")}, r"mark_bias=nan: must be from 0 to 1"),
        ({"mark_prop": 0.5}, r"'mark_prop' does not exist; did you mean 'mark_prob'\?"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        PhantomSpec.from_settings(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["seed=3", "overwrite=True", "lesion_mix={'lung':1e999}"])
def test_command_refuses_before_it_writes(setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "phantom"
    assert main(["phantom", "deeplesion", str(out), "--set", "size=64", setting]) == 2
    assert "phantom " in capsys.readouterr().err
    assert not out.exists()
