from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from mmpluld.models.dense_heads.cells import cells_in_boxes, ignored_cells


def rows_and_columns(box: list[float], scale: float) -> tuple[list[int], list[int]]:
    """Of the cells of one box on an 8 x 8 map of stride 4."""
    (cells,) = cells_in_boxes(torch.tensor([box]), scale, (8, 8), 4)
    rows, columns = cells.any(1).nonzero().flatten().tolist(), cells.any(0).nonzero().flatten().tolist()
    assert cells.sum() == len(rows) * len(columns)
    return rows, columns


@pytest.mark.parametrize(
    ("box", "scale", "rows", "columns"),
    [
        ([4.0, 8.0, 16.0, 16.0], 1.0, [2, 3], [1, 2, 3]),
        ([0.0, 0.0, 32.0, 24.0], 0.5, [2, 3, 4], [2, 3, 4, 5]),  # y in (6, 18], x in (8, 24]
        ([5.0, 5.0, 5.5, 5.5], 0.2, [1], [1]),  # between cell centres: the cell that contains it
        ([4.0, 0.0, 28.0, 1.0], 0.5, [0], [3, 4, 5]),  # flat: one row of its columns, (10, 22]
        ([12.0, 12.0, 12.0, 12.0], 1.0, [3], [3]),  # no extent, on an edge between cells: the far one
        ([30.0, 30.0, 40.0, 40.0], 0.2, [7], [7]),  # centre beyond the map
    ],
)
def test_by_hand(box, scale, rows, columns):
    assert rows_and_columns(box, scale) == (rows, columns)


@settings(max_examples=50)
@given(
    x=st.floats(0, 60), y=st.floats(0, 44), width=st.floats(0, 40), height=st.floats(0, 40), scale=st.floats(0.05, 1)
)
def test_never_empty_and_more_with_scale(x, y, width, height, scale):
    box = torch.tensor([[x, y, min(x + width, 64.0), min(y + height, 48.0)]])
    (cells,) = cells_in_boxes(box, scale, (12, 16), 4)
    (whole,) = cells_in_boxes(box, 1.0, (12, 16), 4)
    assert cells.any()
    assert not (cells & ~whole).any()
    middle = (box[0, :2] + box[0, 2:]) / 2 / 4
    assert cells[min(int(middle[1]), 11), min(int(middle[0]), 15)]


def test_without_a_cell_of_its_own():
    box = torch.tensor([[5.0, 5.0, 5.5, 5.5], [4.0, 8.0, 16.0, 16.0]])
    none, some = cells_in_boxes(box, 1.0, (8, 8), 4, at_least_one=False)
    assert not none.any()
    assert torch.equal(some, cells_in_boxes(box, 1.0, (8, 8), 4)[1])


def test_no_boxes():
    assert cells_in_boxes(torch.zeros(0, 4), 1.0, (3, 5), 4).shape == (0, 3, 5)


def test_ignored_cells_of_a_batch():
    box = InstanceData(bboxes=torch.tensor([[4.0, 0.0, 8.0, 4.0], [8.0, 4.0, 12.0, 8.0]]))
    none = InstanceData(bboxes=torch.zeros(0, 4))
    cells = ignored_cells([none, box, None], 1.0, (2, 3), 4, torch.zeros(3, 1, 2, 3))
    assert cells.int().tolist() == [[[0, 0, 0], [0, 0, 0]], [[0, 1, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]]]
    assert not ignored_cells(None, 1.0, (2, 3), 4, torch.zeros(3, 1, 2, 3)).any()
