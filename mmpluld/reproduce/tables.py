"""The papers' tables as data: a new table is one entry of ``TABLES``."""

from __future__ import annotations

from dataclasses import replace

from mmpluld.errors import InputError, did_you_mean
from mmpluld.reproduce.choices import choices
from mmpluld.reproduce.rows import Row, Table
from mmpluld.reproduce.tables_gate import TABLES_GATE
from mmpluld.reproduce.tables_lens import LENS, MULAN, SINGLE, TABLES_LENS
from mmpluld.reproduce.tables_mined import MINED_ALONE, PROPAGATED, TABLES_MINED
from mmpluld.reproduce.tables_pluld import A3D, TABLES_PLULD

__all__ = ["GROUPS", "TABLES", "Row", "Table", "get_tables", "with_recipe", "without_oracles"]

_CALIBRATED = next(row for table in TABLES_LENS for row in table.rows if row.calibrated)
_CHOICES = choices(A3D, SINGLE, MULAN, LENS, _CALIBRATED, MINED_ALONE, PROPAGATED)
TABLES = {table.name: table for table in (*TABLES_PLULD, *TABLES_LENS, *TABLES_MINED, *TABLES_GATE, *_CHOICES)}
GROUPS = {
    "gate": tuple(table.name for table in TABLES_GATE),
    "lens": tuple(table.name for table in TABLES_MINED),
}
"""Tables that one command makes, one after the other."""


def get_tables(name: str) -> tuple[Table, ...]:
    """Return the tables that the command line calls so, usually one.

    Raises:
        InputError: If there is none.
    """
    if name in GROUPS:
        return tuple(TABLES[part] for part in GROUPS[name])
    if name not in TABLES:
        known = [*TABLES, *GROUPS]
        raise InputError(f"table {name!r} is not known" + did_you_mean(name, known, f"one of {', '.join(known)}"))
    return (TABLES[name],)


def with_recipe(table: Table, recipe: str) -> Table:
    """The table with all rows trained by another recipe.

    Args:
        table: Which table.
        recipe: Name of a recipe for the schedule of its rows, see `mmpluld.engine.recipes`.
    """
    rows = tuple(replace(row, recipe=recipe) for row in table.rows)
    return replace(table, name=f"{table.name}-{recipe}", title=f"{table.title} (recipe: {recipe})", rows=rows)


def without_oracles(table: Table) -> Table:
    """The table without rows on labels of the complete truth, which only phantoms have."""
    rows = tuple(row for row in table.rows if row.labels is None or not row.labels.oracles)
    kept = {row.key for row in rows}
    return replace(table, rows=rows, pairs=tuple(pair for pair in table.pairs if kept.issuperset(pair)))
