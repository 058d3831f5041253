"""The pool, transactions, and the translation of driver errors. The rest of the store receives a connection."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection, InterfaceError, OperationalError
from psycopg.abc import Buffer
from psycopg.rows import DictRow, dict_row
from psycopg.types.array import ListDumper
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from shared.domain.errors import DatabaseUnavailableError

Connection = AsyncConnection[DictRow]
POOL_TIMEOUT_SECONDS = 15


async def _check(connection: Connection) -> None:
    await connection.execute("")


class _Texts(ListDumper):
    """Lists of texts, which most of our arrays are, in one go: element by element they cost more than the query."""

    def dump(self, obj: list[Any]) -> Buffer | None:
        if set(map(type, obj)) != {str}:
            return super().dump(obj)
        joined = '","'.join(obj)
        plain = joined.count('"') == 2 * (len(obj) - 1) and "\\" not in joined and "\0" not in joined
        return f'{{"{joined}"}}'.encode() if plain else super().dump(obj)


async def _configure(connection: Connection) -> None:
    connection.adapters.register_dumper(list, _Texts)
    # In a server's own zone the first and last hours of the calendar, which files may name, could not be read again.
    # Not an option of the connection: PgBouncer takes none.
    await connection.execute("set time zone 'UTC'")


class Database:
    """One pool per process; `open` it on the loop that uses it."""

    def __init__(self, url: str, *, size: int = 8, password: Callable[[], Awaitable[str]] | None = None) -> None:
        async def connection_arguments() -> dict[str, Any]:
            # prepare_threshold=None: PgBouncer in transaction mode cannot follow prepared statements.
            arguments: dict[str, Any] = {
                "autocommit": True,
                "row_factory": dict_row,
                "prepare_threshold": None,
                "connect_timeout": 10,
                "application_name": "tributary",
            }
            if password is not None:
                arguments["password"] = await password()
            return arguments

        self._pool = AsyncConnectionPool(
            url,
            connection_class=AsyncConnection[DictRow],
            kwargs=connection_arguments,
            min_size=0,
            max_size=size,
            timeout=POOL_TIMEOUT_SECONDS,
            max_lifetime=45 * 60,
            max_idle=240,
            check=_check,
            configure=_configure,
            open=False,
            name="tributary",
        )

    async def open(self) -> None:
        """Start the pool; connections are made when first needed."""
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """An autocommit connection for single statements; raises DatabaseUnavailableError when none can be had."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except PoolTimeout as error:
            raise DatabaseUnavailableError("No database connection could be had in time") from error
        except (OperationalError, InterfaceError) as error:
            raise DatabaseUnavailableError("The database connection was lost") from error

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """A connection inside one transaction: commits at the end, rolls back on any error."""
        async with self.connection() as connection, connection.transaction():
            yield connection
