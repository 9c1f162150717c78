"""Benchmarks still fit the package: those of simulated stores run on a few slices."""

from __future__ import annotations

from benchmarks import mining
from mmpluld.mining.mine import mine_files


def test_what_the_benchmark_of_mining_simulates_can_be_mined(tmp_path):
    mining.simulate(tmp_path, 4 * mining.SLICES)
    result = mine_files(
        tmp_path / "train.json",
        [tmp_path / "proposals"],
        strategies=mining.STRATEGIES,
        embedding_folders=[tmp_path / "embeddings"],
    )
    counts = {row["strategy"]: row for row in result.counts}
    assert counts["none"]["lesions_3d"] == 2
    assert counts["intra-patient"]["lesions_3d"] > counts["cross-slice"]["lesions_3d"]
