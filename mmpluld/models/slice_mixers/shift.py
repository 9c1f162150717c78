"""TSM and AlignShift: some channels of each slice come from the slice next to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

__all__ = ["AlignShiftMixer", "TSMMixer"]


class ShiftMixer(nn.Module):
    """What both shifts share: ``fold`` channels look at the next slice, ``fold`` at the previous, the rest at neither.

    Args:
        channels: Channels C of the input.
        num_slices: Slices D of the stack.
        fold_div: ``fold`` is C / fold_div, rounded down.

    Raises:
        InputError: If ``fold_div`` is below 2, so that the two groups would overlap.
    """

    def __init__(self, channels: int, num_slices: int, fold_div: int = 8) -> None:
        super().__init__()
        if fold_div < 2:
            raise InputError(f"fold_div is {fold_div}; allowed are numbers from 2, the published models have 8")
        self.channels = channels
        self.num_slices = num_slices
        self.fold = channels // fold_div

    def _groups(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The channels that look at the next slice, at the previous slice, and at neither."""
        first, second, rest = x.split([self.fold, self.fold, self.channels - 2 * self.fold], 1)
        return first, second, rest

    def _shift_matrices(self, weight: Tensor) -> Tensor:
        """Maps (fold + fold, D, D), target before source, that take every slice from its neighbour; 0 at the end."""
        to_next = torch.diag(weight.new_ones(self.num_slices - 1), 1)
        return torch.stack([to_next, to_next.t()]).repeat_interleave(self.fold, 0)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, num_slices={self.num_slices}, fold={self.fold}"


@MODELS.register_module()
class TSMMixer(ShiftMixer):
    """Move 1/8 of the channels up by one slice, 1/8 down, and fill the ends with zeros.

    With f = C / fold_div rounded down:

        y[:, c, d] = x[:, c, d + 1]   for c < f,           0 in the last slice
        y[:, c, d] = x[:, c, d - 1]   for f <= c < 2 f,    0 in the first slice
        y[:, c, d] = x[:, c, d]       for all other channels

    Args:
        channels: Channels C of the input.
        num_slices: Slices D of the stack.
        fold_div: See above.

    Shape:
        Input and output (B, C, D, H, W).

    Raises:
        InputError: If ``fold_div`` is below 2.

    Source: "TSM: Temporal Shift Module for Efficient Video Understanding", 2019, as the A3D code uses it.
    """

    def matrices(self, thickness_mm: Tensor | None = None) -> Tensor:
        """The linear maps (2 f, target slice, source slice) of the first 2 f channels; the others pass unchanged."""
        return self._shift_matrices(torch.empty(()))

    def forward(self, x: Tensor, thickness_mm: Tensor | None = None) -> Tensor:
        """Shift ``x`` (B, C, D, H, W); the slice interval has no influence."""
        first, second, rest = self._groups(x)
        first = F.pad(first[:, :, 1:], (0, 0, 0, 0, 0, 1))
        second = F.pad(second[:, :, :-1], (0, 0, 0, 0, 1, 0))
        return torch.cat([first, second, rest], 1)


@MODELS.register_module()
class AlignShiftMixer(ShiftMixer):
    """The shift of TSM by a fixed distance in mm instead of by one slice, so that thin and thick series look alike.

    The shifted channels of slice d become those of a virtual slice ``ref_thickness_mm`` away from it, interpolated
    linearly between slice d and its neighbour t mm away, where t is the slice interval of the series:

        alpha = 1 - clamp(ref_thickness_mm / t, 0, 1)
        y[:, c, d] = alpha * x[:, c, d] + (1 - alpha) * x[:, c, d + 1]   for c < f
        y[:, c, d] = alpha * x[:, c, d] + (1 - alpha) * x[:, c, d - 1]   for f <= c < 2 f
        y[:, c, d] = x[:, c, d]                                          for all other channels

    t up to ``ref_thickness_mm`` shifts by a whole slice; thicker series are mixed less. An interval that is not known
    (NaN) or negative leaves the slices as they are, as an infinite one does.

    Args:
        channels: Channels C of the input.
        num_slices: Slices D of the stack.
        fold_div: f is C / fold_div, rounded down.
        ref_thickness_mm: Distance of the virtual slice.
        zero_padding: Beyond the ends of the stack lie zeros; else the end slice keeps the channels it would shift.

    Shape:
        Input and output (B, C, D, H, W), thickness (B,) in mm.

    Raises:
        InputError: If ``fold_div`` is below 2, ``ref_thickness_mm`` is not positive, or no thickness is given.

    Source: "AlignShift: Bridging the Gap of Imaging Thickness in 3D Anisotropic Volumes", 2020. The published
    configs have ``zero_padding`` off.
    """

    def __init__(
        self,
        channels: int,
        num_slices: int,
        fold_div: int = 8,
        ref_thickness_mm: float = 2.0,
        zero_padding: bool = False,
    ) -> None:
        super().__init__(channels, num_slices, fold_div)
        if not 0 < ref_thickness_mm < float("inf"):
            raise InputError(f"ref_thickness_mm is {ref_thickness_mm}; allowed is a number of mm above 0")
        self.ref_thickness_mm = float(ref_thickness_mm)
        self.zero_padding = zero_padding

    def neighbour_share(self, thickness_mm: Tensor | None) -> Tensor:
        """Weight 1 - alpha of the neighbouring slice, in [0, 1], float32, of the shape of ``thickness_mm``."""
        if thickness_mm is None:
            raise InputError(
                "AlignShiftMixer: the slice interval did not reach the model; set type='ThicknessPreprocessor' in "
                "model.data_preprocessor and keep 'slice_interval_mm' in the meta_keys of PackDetInputs"
            )
        thickness_mm = thickness_mm.float()
        share = (self.ref_thickness_mm / thickness_mm).clamp_max(1.0)
        # Any comparison with NaN is false, which leaves the slices of an unknown interval alone.
        return torch.where(thickness_mm > 0, share, (thickness_mm == 0).float())

    def matrices(self, thickness_mm: Tensor | None = None) -> Tensor:
        """The linear maps (2 f, target slice, source slice) of the first 2 f channels; the others pass unchanged.

        Args:
            thickness_mm: Slice interval of one stack, a scalar.
        """
        share = self.neighbour_share(thickness_mm)
        shift = self._shift_matrices(share)
        if not self.zero_padding:
            shift = shift + torch.diag_embed(1.0 - shift.sum(2))
        return torch.lerp(torch.eye(self.num_slices, device=share.device).expand_as(shift), shift, share)

    def forward(self, x: Tensor, thickness_mm: Tensor | None = None) -> Tensor:
        """Mix the slices of ``x`` (B, C, D, H, W); ``thickness_mm`` (B,) are their slice intervals."""
        share = self.neighbour_share(thickness_mm).to(x.dtype).view(-1, 1, 1, 1, 1)
        first, second, rest = self._groups(x)
        last, start = first[:, :, -1:], second[:, :, :1]
        if self.zero_padding:
            last, start = torch.zeros_like(last), torch.zeros_like(start)
        first = torch.lerp(first, torch.cat([first[:, :, 1:], last], 2), share)
        second = torch.lerp(second, torch.cat([start, second[:, :, :-1]], 2), share)
        return torch.cat([first, second, rest], 1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ref_thickness_mm={self.ref_thickness_mm}, zero_padding={self.zero_padding}"
