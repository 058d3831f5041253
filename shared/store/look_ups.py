"""How to look records up by key, whatever the planner believes of a table.

    select held.* from {MINE} cross join unnest(%(ids)s::text[]) as asked(id) cross join lateral (
        select … from … where import_source = mine.source and external_id = asked.id limit 1) held

The limit, or an offset, keeps it from reading all that a source has in the table instead, once for all ids. That the
source stands behind a fence keeps it from asking its statistics for that very source: where they are older than the
source's first records they say that there are none, and any index that begins with the source seems as good as that of
the key.
"""

from psycopg import sql

MINE = sql.SQL("(select %(source)s::text offset 0) as mine(source)")


def equals(column: str, value: str) -> sql.Composed:
    """A comparison with a value of another row by which an index can find what is not unique.

    Of a range whose ends it does not know the planner always believes that it is small. Of equality it believes that it
    holds for every row if all rows that were there when it last looked had one value, and then reads the whole table.
    """
    return sql.SQL("{column} between {value} and {value}").format(
        column=sql.Identifier(column), value=sql.Identifier(*value.split("."))
    )
