"""A race is fair only if both runners ran the whole way: compares the two tables after each phase."""

from dataclasses import dataclass

import psycopg

SAMPLE_ONE_IN = 50

# `customer` is a column nobody maps: it has to survive in the payload.
_COMPARE = """
with ours as (
    select * from public.issues
     where import_source = 'bench' and deleted_at is null and hashtext(external_id) %% %(one_in)s = 0
),
plain as (
    select * from bench.issues where hashtext(external_id) %% %(one_in)s = 0
)
select count(*) as rows,
       count(*) filter (where ours.external_id is null or plain.external_id is null or
           ours.payload ->> 'customer' is distinct from plain.payload ->> 'customer' or
           (ours.key, ours.title, ours.description, ours.type, ours.status, ours.status_category, ours.priority,
            ours.severity, ours.assignee, ours.reporter, ours.labels, ours.components, ours.project, ours.sprint,
            ours.environment, ours.stack_trace, ours.url, ours.story_points, ours.source_created_at,
            ours.source_updated_at)
           is distinct from
           (plain.key, plain.title, plain.description, plain.type, plain.status, plain.status_category, plain.priority,
            plain.severity, plain.assignee, plain.reporter, plain.labels, plain.components, plain.project, plain.sprint,
            plain.environment, plain.stack_trace, plain.url, plain.story_points, plain.source_created_at,
            plain.source_updated_at)) as different
  from ours full join plain on ours.external_id = plain.external_id
"""


@dataclass(frozen=True)
class Comparison:
    """Rows of both tables, and how many of the sampled ones differ."""

    tributary: int
    plain: int
    sampled: int
    different: int

    @property
    def same(self) -> bool:
        return self.tributary == self.plain and self.different == 0 and self.sampled > 0


def compare(url: str) -> Comparison:
    """Count both tables and compare every column of a sample chosen by hash."""
    with psycopg.connect(url) as connection:
        ours = _count(connection, "select count(*) from public.issues where import_source = 'bench'")
        plain = _count(connection, "select count(*) from bench.issues")
        row = connection.execute(_COMPARE, {"one_in": SAMPLE_ONE_IN}).fetchone()
    sampled, different = row or (0, 0)
    return Comparison(ours, plain, sampled, different)


def _count(connection: psycopg.Connection, statement: str) -> int:
    row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else 0
