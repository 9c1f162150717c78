"""Random streams of the phantom: one for every patient of every part of every data set."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["patient_stream"]


def patient_stream(seed: int, stream: str, patient: int) -> np.random.Generator:
    """The random numbers of one patient, which no other patient of any data set shares.

    They depend on nothing else: how many patients there are, in this split or another, changes none of them.

    Args:
        seed: Seed of the phantom, from 0.
        stream: Name of the data set and of its part, such as ``deeplesion/test`` or ``luna16``. Two data sets whose
            patients must not be the same ones need two names, whatever their seeds.
        patient: Number of the patient in it, from 1.
    """
    # A digest, not a list of numbers: NumPy's lists [1, 2] and [1, 2, 0] seed the same stream.
    name = hashlib.sha256(f"{seed}/{patient}/{stream}".encode()).digest()
    return np.random.default_rng(int.from_bytes(name, "little"))
