"""Loading of slice stacks."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmpluld.errors import InputError
from mmpluld.io.hounsfield import without_padding
from mmpluld.io.slice_sources import SliceSource, open_source_at
from mmpluld.io.slice_stack import INTERPOLATIONS, Interpolation, blend_stack, plan_indices, plan_stack, stack_gap_mm
from mmpluld.registry import TRANSFORMS

__all__ = ["LoadSliceStack", "RepeatKeySlice"]

_WORTH_A_THREAD = 256 * 256
"""Pixels of a slice from which threads pay; smaller ones are sooner decoded than handed over."""

_pools: dict[int, ThreadPoolExecutor] = {}
# A forked data-loader worker inherits the pool object but none of its threads.
os.register_at_fork(after_in_child=_pools.clear)


@TRANSFORMS.register_module()
class LoadSliceStack(BaseTransform):
    """Load D slices around the key slice, a fixed distance in mm apart, as the channels of one image.

    Required keys: ``key_slice`` and either ``slice_source`` (a
    :class:`~mmpluld.io.slice_sources.SliceSource`) or ``source`` (dict with ``kind`` and ``path``),
    ``spacing_mm``, ``first_slice``.

    Added keys: ``img`` (H, W, D) float32 HU from -1024, C-contiguous, slices by increasing number with the key slice in
    the centre; ``img_shape`` and ``ori_shape`` (H, W), ``height``, ``width``, ``spacing_mm`` (z, y, x),
    ``slice_interval_mm`` (as the scan has it, NaN if unknown; left alone where the sample states it already).

    Each stored slice is decoded once, several at a time; those of the previous stack are used again when the
    next one comes from the same series.

    Args:
        num_slices: D, odd.
        slice_gap_mm: Distance of the stack's slices in mm; 0 repeats the key slice.
        interp: ``exact``, ``peer``, ``native`` or ``native-peer``, see :func:`mmpluld.io.slice_stack.plan_stack`.
        num_threads: Large slices decoded at the same time; 0 decodes all in the calling thread.
        z_jitter: In training, take a slice near the key slice as the centre, at most this share of half the smallest
            diameter in ``recist_mm`` away, nearer ones more often (MULAN's code: 0.5); boxes stay those of the key
            slice. 0 takes the key slice.

    Raises:
        InputError: A setting is not allowed, the key slice does not exist, or a slice cannot be read.
    """

    def __init__(
        self,
        num_slices: int,
        slice_gap_mm: float = 2.0,
        interp: Interpolation = "exact",
        num_threads: int = 4,
        z_jitter: float = 0.0,
    ) -> None:
        if num_slices < 1 or num_slices % 2 == 0:
            raise InputError(f"LoadSliceStack: num_slices is {num_slices}; allowed are odd numbers from 1")
        if interp not in INTERPOLATIONS:
            raise InputError(f"LoadSliceStack: interp is {interp!r}; allowed are {', '.join(INTERPOLATIONS)}")
        if num_threads < 0:
            raise InputError(f"LoadSliceStack: num_threads is {num_threads}; allowed is 0 or more")
        if not 0 <= z_jitter <= 1:
            raise InputError(f"LoadSliceStack: z_jitter is {z_jitter}; allowed is 0 to 1")
        self.num_slices = num_slices
        self.slice_gap_mm = slice_gap_mm
        self.interp: Interpolation = interp
        self.num_threads = num_threads
        self.z_jitter = z_jitter
        self._pixels = _WORTH_A_THREAD
        self._slices: dict[int, np.ndarray] = {}
        self.forget()

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Load the stack of ``results['key_slice']``."""
        try:
            source = self._open(results)
            spacing = source.spacing_mm
            plan = plan_stack(
                self._centre(results, spacing[0]),
                spacing[0],
                self._available,
                self.num_slices,
                self.slice_gap_mm,
                self.interp,
            )
            self._slices = self._read(source, plan_indices(plan))
            stack = blend_stack(plan, self._slices)
        except (InputError, OSError) as error:
            self.forget()  # of a series that failed nothing is used again
            raise InputError(_named(error, results)) from error
        height, width = stack.shape[:2]
        results.update(
            img=stack,
            img_shape=(height, width),
            ori_shape=(height, width),
            height=height,
            width=width,
            spacing_mm=spacing,
        )
        results.setdefault("slice_interval_mm", spacing[0])
        return results

    def _centre(self, results: dict[str, Any], interval_mm: float) -> int:
        """Number of the slice at the centre of the stack."""
        key_slice = int(results["key_slice"])
        diameters = np.array(results.get("recist_mm", ()) if self.z_jitter else (), np.float64)
        smallest = np.nanmin(diameters, initial=np.inf)
        if not (np.isfinite(smallest) and interval_mm > 0):
            return key_slice
        reach = int(smallest / 2 / interval_mm * self.z_jitter)
        if not reach:
            return key_slice
        (steps,) = random.choices(range(reach), weights=range(reach, 0, -1))
        near = key_slice + random.choice((-1, 1)) * steps
        return near if near in self._available else key_slice

    def gap_mm(self, interval_mm: float) -> float:
        """The distance in mm of the stack's slices in a series with slices ``interval_mm`` apart."""
        return stack_gap_mm(interval_mm, self.slice_gap_mm, self.interp)

    def _open(self, results: dict[str, Any]) -> SliceSource:
        """The source of this sample; the previous one where it is the same series."""
        source: SliceSource | None = results.get("slice_source")
        if source is not None:
            if source is not self._source:
                self._remember(source, None)
            return source
        kind, path, units = (results["source"].get(key) for key in ("kind", "path", "units"))
        spacing, first_slice = results["spacing_mm"], results.get("first_slice", 0)
        # As text, because an unknown spacing is NaN, which equals nothing.
        place = f"{kind} {path} {units} {tuple(spacing)} {first_slice}"
        if self._source is None or place != self._place:
            opened = open_source_at(results["source"], Path(), spacing, first_slice)
            self._remember(opened, place)
            return opened
        return self._source

    def _read(self, source: SliceSource, indices: list[int]) -> dict[int, np.ndarray]:
        missing = [index for index in indices if index not in self._slices]
        several = self.num_threads > 0 and len(missing) > 1 and self._pixels >= _WORTH_A_THREAD
        fresh = _pool(self.num_threads).map(source.read, missing) if several else map(source.read, missing)
        loaded = self._slices | dict(zip(missing, map(without_padding, fresh), strict=True))
        self._pixels = loaded[indices[0]].size
        return {index: loaded[index] for index in indices}

    def forget(self) -> None:
        """Let go of the series at hand; the next sample opens its own anew."""
        self._remember(None, None)

    def _remember(self, source: SliceSource | None, place: str | None) -> None:
        """Make ``source`` the series at hand, of which no slice was read yet."""
        self._source = source
        self._place = place
        self._available = frozenset(source.indices.tolist()) if source is not None else frozenset()
        self._slices = {}

    def __getstate__(self) -> dict[str, Any]:
        """Settings only: what was read stays in the process that read it."""
        kept = ("num_slices", "slice_gap_mm", "interp", "num_threads", "z_jitter")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pixels = _WORTH_A_THREAD
        self.forget()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_slices={self.num_slices}, slice_gap_mm={self.slice_gap_mm}, "
            f"interp={self.interp!r}, num_threads={self.num_threads}, z_jitter={self.z_jitter})"
        )


def _named(error: Exception, results: Mapping[str, Any]) -> str:
    """The message of an error with the file and the volume that it is about, unless it names them."""
    text = str(error)
    path, volume = str((results.get("source") or {}).get("path", "")), results.get("volume_id")
    if volume and str(volume) not in text:
        text = f"volume {volume}: {text}"
    return f"{path}: {text}" if path and path not in text else text


def _pool(num_threads: int) -> ThreadPoolExecutor:
    """The process's pool of that size."""
    if num_threads not in _pools:
        _pools[num_threads] = ThreadPoolExecutor(num_threads, thread_name_prefix="slices")
    return _pools[num_threads]


@TRANSFORMS.register_module()
class RepeatKeySlice(BaseTransform):
    """Now and then show the key slice in place of its neighbours, as where a slice is all there is of a scan.

    A detector that never sees such a stack takes a lesion in it for a vessel, which crosses all slices alike.

    Required and modified key: ``img`` (H, W, D), D odd.

    Args:
        prob: Share of the stacks.

    Raises:
        InputError: ``prob`` is not within 0 to 1.
    """

    def __init__(self, prob: float) -> None:
        if not 0 <= prob <= 1:
            raise InputError(f"RepeatKeySlice: prob is {prob}; allowed is 0 to 1")
        self.prob = prob

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``results['img']``; the array that was there is left as it is."""
        if random.random() < self.prob:
            image = results["img"]
            middle = image.shape[2] // 2
            results["img"] = np.repeat(image[:, :, middle : middle + 1], image.shape[2], axis=2)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prob={self.prob})"
