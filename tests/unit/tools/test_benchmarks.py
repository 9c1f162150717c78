"""What the benchmarks measure with."""

from __future__ import annotations

import numpy as np

from benchmarks._apart import apart, peak_memory_mb


def test_a_process_apart_has_the_memory_of_its_own():
    held = np.ones(300 << 17)  # 300 MiB, which the parent's peak keeps
    del held
    assert peak_memory_mb() > 300
    assert apart(peak_memory_mb) < 200
