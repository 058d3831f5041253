"""What the planner makes of a query: connections that explain instead of executing."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import sql

# In the planner's units; to read the whole of a large table costs about ten times as much.
A_TENTH_OF_THE_TABLE = 5_000


class Explaining:
    """Stands in for a connection: explains what is executed on it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
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
        return []

    async def fetchone(self) -> None:
        return None


@asynccontextmanager
async def explaining(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield Explaining(connection)


def assert_cheap(connection: Explaining) -> None:
    [plan] = connection.plans
    assert "Seq Scan" not in json.dumps(plan), plan
    assert plan["Plan"]["Total Cost"] < A_TENTH_OF_THE_TABLE, plan
