"""A batch of slice stacks cut into chunks of pixels, whose results stay in the cache."""

from __future__ import annotations

from torch import Tensor

__all__ = ["Chunks", "Scratch", "nearest_divisor"]


class Chunks:
    """The pixels of (B, P) in chunks of q: some pixels of one stack, or some whole stacks.

    Args:
        batch: Stacks B.
        pixels: Pixels P of a slice.
        target: Wanted q; the nearest that divides evenly is taken.
        together: Whether a chunk may hold several stacks.
    """

    def __init__(self, batch: int, pixels: int, target: float, together: bool) -> None:
        self.batch, self.pixels = batch, pixels
        self.stacks, self.parts = 1, 1  # stacks in a chunk, chunks in a stack
        if pixels < target and together:
            self.stacks = nearest_divisor(batch, target / pixels)
        elif pixels > target:
            self.parts = nearest_divisor(pixels, pixels / target)
        self.size = self.stacks * pixels // self.parts
        self.number = batch * pixels // self.size

    def split(self, x: Tensor) -> Tensor:
        """(B, C, D, P) to (K, C, D, q)."""
        x = x.unflatten(3, (self.parts, -1)).unflatten(0, (-1, self.stacks))
        return x.permute(0, 4, 2, 3, 1, 5).reshape(self.number, *x.shape[2:4], self.size)

    def join(self, x: Tensor) -> Tensor:
        """(K, C, D, q) to (B, C, D, P)."""
        x = x.unflatten(3, (self.stacks, -1)).unflatten(0, (-1, self.parts))
        return x.permute(0, 4, 2, 3, 1, 5).reshape(self.batch, *x.shape[2:4], self.pixels)

    def first_stack(self, index: int) -> int:
        """The first stack in a chunk."""
        return index // self.parts * self.stacks

    def of_images(self, images: Tensor, index: int) -> Tensor:
        """View of a chunk of ``images`` (B, D, C, P), as (C, D, stacks, pixels)."""
        stack, size = self.first_stack(index), self.size // self.stacks
        start = index % self.parts * size
        return images[stack : stack + self.stacks, :, :, start : start + size].permute(2, 1, 0, 3)


def nearest_divisor(number: int, target: float) -> int:
    """The divisor of ``number`` whose ratio to ``target`` is nearest to 1."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: max(d / target, target / d))


class Scratch:
    """Memory for the results of a chunk, used again and again."""

    def __init__(self, like: Tensor, values: int, number: int) -> None:
        self._buffers = like.new_empty(number, values)

    def like(self, index: int, x: Tensor) -> Tensor:
        """Buffer ``index`` as a contiguous tensor of the shape of ``x``."""
        return self._buffers[index, : x.numel()].view(x.shape)
