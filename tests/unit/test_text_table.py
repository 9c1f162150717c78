"""Tables as plain text."""

from mmpluld.text_table import text_table

ROWS = [["name", "n", "note"], ["a", "10", ""], ["longer", "7", "x"]]


def test_text_to_the_left_numbers_to_the_right():
    assert text_table(ROWS).splitlines() == ["name     n  note", "a       10", "longer   7     x"]


def test_as_many_columns_to_the_left_as_wanted():
    assert text_table(ROWS, left=0).splitlines() == ["  name   n  note", "     a  10", "longer   7     x"]
    assert text_table(ROWS, left=3).splitlines() == ["name    n   note", "a       10", "longer  7   x"]


def test_a_header_alone_and_nothing_at_all():
    assert text_table(ROWS[:1]) == "name  n  note"
    assert text_table([]) == ""
