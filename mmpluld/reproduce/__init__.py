"""Reproducing the papers' tables: which rows they have, running them over seeds, comparing them, and reporting."""

from mmpluld.reproduce.tables import TABLES, Row, Table, get_tables

__all__ = ["TABLES", "Row", "Table", "get_tables"]
