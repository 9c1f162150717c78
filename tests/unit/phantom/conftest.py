"""Phantoms that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpluld.phantom import PhantomCase, make_phantom, write_deeplesion_layout


@pytest.fixture(scope="session")
def torso() -> PhantomCase:
    """A whole torso in 10 mm slices without noise."""
    return make_phantom(
        5, size=128, regions=("torso",), intervals_mm=(10.0,), noise_hu=(0.0, 0.0), lesions_per_series=20.0
    )


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DeepLesion-like folder."""
    return write_deeplesion_layout(
        tmp_path_factory.mktemp("phantom") / "dl",
        (3, 1, 1),
        seed=2,
        size=64,
        max_slices=24,
        max_series=2,
        noisy_prob=0.2,
    )
