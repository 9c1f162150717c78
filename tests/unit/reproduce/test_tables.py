"""The tables are consistent, and every row has its configs."""

from __future__ import annotations

import pytest

from mmpluld.engine.run import find_config
from mmpluld.errors import InputError
from mmpluld.evaluation.functional import get_protocol
from mmpluld.reproduce import TABLES, get_table


@pytest.mark.parametrize("name", TABLES)
def test_rows_have_configs_of_both_sizes_and_full_paper_lines(name):
    table = get_table(name)
    for row in table.rows:
        for twin in (False, True):
            assert find_config(row.config_name(twin)).is_file()
        assert len(row.paper) in (0, len(get_protocol(table.protocol).levels) + 1)


@pytest.mark.parametrize("name", TABLES)
def test_keys_are_unique_and_pairs_name_rows(name):
    table = get_table(name)
    keys = [row.key for row in table.rows]
    assert len(set(keys)) == len(keys)
    for pair in table.pairs:
        assert set(pair) <= set(keys)
        assert pair[0] != pair[1]


def test_a_key_means_the_same_config_in_every_table():
    configs: dict[str, set[str]] = {}
    for table in TABLES.values():
        for row in table.rows:
            configs.setdefault(row.key, set()).add(row.config)
    assert {key for key, names in configs.items() if len(names) > 1} == set()
    assert len(set.union(*configs.values())) == len(configs)


def test_paper_averages_are_those_of_their_first_four_columns():
    # Printed columns and averages are rounded separately.
    complete = [row.paper for row in get_table("table1").rows]
    assert len(complete) == 6
    for *values, average in complete:
        assert average == pytest.approx(sum(values[:4]) / 4, abs=0.0051)


def test_figure_4_goes_from_0_to_1_by_tenths():
    places = [row.x for row in get_table("figure4").rows if row.x is not None]
    assert places == pytest.approx([tenths / 10 for tenths in range(11)])


def test_unknown_table_names_the_nearest():
    with pytest.raises(InputError, match="'tabel1' is not known; did you mean 'table1'"):
        get_table("tabel1")
    with pytest.raises(InputError, match="one of table1, table2"):
        get_table("zzz")
