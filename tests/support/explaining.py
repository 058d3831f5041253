"""What the planner makes of a query: connections that explain instead of executing."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import sql

# In the planner's units; to read the whole of a large table costs about ten times as much.
A_TENTH_OF_THE_TABLE = 5_000


class Explaining:
    """Stands in for a connection: explains what is executed on it, and answers every query with the same rows."""

    rowcount = 0

    def __init__(self, connection: psycopg.AsyncConnection[Any], rows: list[dict[str, Any]]) -> None:
        self._connection = connection
        self._rows = rows
        self.plans: list[dict[str, Any]] = []

    async def execute(self, query: Any, params: Any = None, **_: Any) -> "Explaining":
        text = query if isinstance(query, sql.Composable) else sql.SQL(query)
        if "set_config" in text.as_string(self._connection):
            await self._connection.execute(query, params)
            return self
        cursor = await self._connection.execute(sql.SQL("explain (format json) ") + text, params)
        row = await cursor.fetchone()
        self.plans.append(row[0][0])
        return self

    async def fetchall(self) -> list[Any]:
        return self._rows

    async def fetchone(self) -> None:
        return None


@asynccontextmanager
async def explaining(url: str, rows: list[dict[str, Any]] | None = None) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield Explaining(connection, rows or [])


def assert_cheap(connection: Explaining) -> None:
    [plan] = connection.plans
    assert "Seq Scan" not in json.dumps(plan), plan
    assert plan["Plan"]["Total Cost"] < A_TENTH_OF_THE_TABLE, plan


# Of what is gone only.
PARTIAL_INDEXES = {"issues_gone"}


def assert_looked_up(connection: Explaining) -> None:
    """Every table is read by the whole of a key, by the places of rows, or where few rows are."""
    for plan in connection.plans:
        for scan in _scans(plan["Plan"]):
            by_place = scan["Node Type"] == "Tid Scan"
            by_index = scan["Node Type"] in {"Index Scan", "Index Only Scan"}
            by_key = by_index and (" AND " in scan["Index Cond"] or scan["Index Name"] in PARTIAL_INDEXES)
            assert by_place or by_key, scan


def _scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Relation Name" in node and "Scan" in node["Node Type"]:
        yield node
    for below in node.get("Plans", ()):
        yield from _scans(below)
