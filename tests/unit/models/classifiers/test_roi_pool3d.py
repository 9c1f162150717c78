"""RoIAlign on volumes, by hand."""

import torch

from mmpluld.models.classifiers.roi_pool3d import roi_align3d


def ramp(depth, height, width):
    """A map whose value is 100 z + 10 y + x of the voxel."""
    z, y, x = torch.meshgrid(*map(torch.arange, (depth, height, width)), indexing="ij")
    return (100 * z + 10 * y + x).float()[None, None]


def test_cells_of_a_known_map():
    pooled = roi_align3d(ramp(4, 4, 6), torch.tensor([[1.0, 0, 1, 4, 2, 3]]), (2, 1, 3))
    # Along x the cells are the voxels 1, 2 and 3; along y one cell is the mean of 0 and 1; along z they are 1 and 2.
    assert pooled.shape == (1, 1, 2, 1, 3)
    torch.testing.assert_close(pooled[0, 0, :, 0], torch.tensor([[106.0, 107, 108], [206, 207, 208]]))


def test_values_go_on_beyond_the_outermost_centres():
    pooled = roi_align3d(ramp(1, 1, 2), torch.tensor([[0.0, 0, 0, 2, 1, 1]]), (1, 1, 2))
    # Points at 0.25 and 0.75 from the near edge are at -0.25 and 0.25 of the centres: 0 and 0.25; then 0.75 and 1.
    torch.testing.assert_close(pooled.flatten(), torch.tensor([0.125, 0.875]))


def test_each_patch_has_its_own_box():
    maps = ramp(2, 2, 4).repeat(2, 3, 1, 1, 1)
    boxes = torch.tensor([[0.0, 0, 0, 1, 1, 1], [3, 1, 1, 4, 2, 2]])
    pooled = roi_align3d(maps, boxes, (1, 1, 1), sampling_ratio=1)
    assert pooled.view(2, 3).tolist() == [[0, 0, 0], [113, 113, 113]]
