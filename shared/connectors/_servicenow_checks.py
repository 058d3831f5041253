"""Settings held against the instance: what it would ignore without a word is refused here, by name."""

from collections.abc import Iterable, Sequence

from shared.connectors._http import together
from shared.connectors._servicenow_instance import Instance
from shared.connectors._servicenow_query import filter_columns
from shared.connectors._servicenow_session import Rows
from shared.domain.errors import SourceError, Trouble


async def check_filter(instance: Instance, query: str, tables: Sequence[str]) -> None:
    """A condition on a column that is not there would be left out, and every row come."""
    columns = filter_columns(query)
    for table in tables if columns else ():
        if unknown := await instance.unknown_columns(table, columns):
            names = ", ".join(sorted(unknown))
            hint = "Correct the filter; if it is right, let the account read sys_dictionary and sys_db_object"
            detail = f"Table {table} has no column {names}; the instance would ignore the filter and send every row"
            raise SourceError(Trouble.BAD_REQUEST, detail, hint=hint)


async def check_families(instance: Instance, tables: Sequence[str]) -> None:
    """A table beside one that it extends would bring its rows twice."""
    if len(tables) < 2:
        return
    for table, family in zip(tables, await together(map(instance.family, tables)), strict=True):
        if twice := set(family) & set(tables) - {table}:
            detail = f"The rows of {', '.join(sorted(twice))} are rows of {table} as well"
            raise SourceError(Trouble.BAD_REQUEST, detail, hint=f"Leave one of them out, or {table}")


def check_mapping(fields: Iterable[str], samples: Sequence[Rows]) -> None:
    """Fields that no table has, or that the account may not read, are left out of rows."""
    told = {name for sample in samples for row in sample.rows for name in row}
    unknown = sorted(set(fields) - told)
    if told and unknown:
        detail = f"The field mapping names {', '.join(unknown)}, which no row of the tables shows"
        hint = "Correct the name (not the label) of the field, or let the account read it"
        raise SourceError(Trouble.BAD_REQUEST, detail, hint=hint)
