"""How much memory is free."""

from __future__ import annotations

import gc
import resource

import pytest

from benchmarks import fuzz
from mmpluld.compat import memory


def test_what_the_machine_has_left():
    assert 1 << 20 < memory.available_memory() < 1 << 50


def test_an_address_space_that_is_limited(tmp_path):
    def read(_):
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        return memory.available_memory() < 2 << 30

    assert fuzz.attempt(fuzz.Target("limit", lambda _: None, read), tmp_path, "True")[0] == "same"


@pytest.mark.parametrize("version", [1, 2])
def test_control_groups(tmp_path, version):
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    for folder, limit, used, cache in ((inner, "max", 50, 0), (tmp_path / "job", 1000, 700, 200)):
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\n")
    assert list(memory._left(tmp_path, "/job/step", *names)) == [500.0]
    assert list(memory._left(tmp_path, "/gone", *names)) == []


def test_collection_goes_on_as_it_was() -> None:
    @memory.uncollected()
    def fails() -> None:
        assert not gc.isenabled()
        raise KeyError

    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            with pytest.raises(KeyError):
                fails()
            assert gc.isenabled() == enabled
        finally:
            gc.enable()
