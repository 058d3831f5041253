"""How rows travel through COPY: as CSV between control characters, so that hardly anything has to be escaped.

Searching long texts for what to escape would cost more than the rest of the work.
"""

from psycopg import sql

QUOTE, DELIMITER = "\x02", "\x1f"
BETWEEN = f"{QUOTE}{DELIMITER}{QUOTE}"
NULL = "\x03NULL\x03"
"""Means NULL where an empty text is a value of its own."""


def quotable(text: str) -> str:
    """Text as it may stand between our quotes: one within is doubled."""
    return text.replace(QUOTE, 2 * QUOTE)


def copy_into(table: sql.Identifier, columns: sql.Composed, *, null: str = "") -> sql.Composed:
    """The statement for lines of which every field stands between quotes; `null` is the text that means NULL."""
    return sql.SQL("copy {} ({}) from stdin (format csv, delimiter {}, quote {}, null {}, force_null ({}))").format(
        table, columns, sql.Literal(DELIMITER), sql.Literal(QUOTE), sql.Literal(null), columns
    )
