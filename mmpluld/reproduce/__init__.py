"""Reproducing the papers' tables: which rows they have, running them over seeds, comparing them, and reporting."""

from mmpluld.reproduce.tables import TABLES, Row, Table, get_table

__all__ = ["TABLES", "Row", "Table", "get_table"]
