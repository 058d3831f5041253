"""What of a tracker's own query language the simulated ones understand."""

import pytest

from local.trackers._jira_jql import Jql, JqlError
from local.trackers._sentry_json import level_of, parse_query
from local.trackers.world import World, seeded


def found(world: World, jql: str) -> set[int]:
    query = Jql(world).parse(jql)
    return {issue.id for issue in world.all_current() if all(test(issue) for test in query.rest)}


@pytest.mark.parametrize(
    "jql", ['summary ~ "anchor 100%"', 'text ~ "l\'ancre"', 'description ~ "ünï ☃" AND summary ~ anchor'], ids=str
)
def test_jira_finds_words(jql: str) -> None:
    world = seeded(20, projects=("HARBOR",))
    wanted = world.create("HARBOR", title="Anchor 100% lost", body="L'ancre: ünï ☃")

    assert found(world, jql) == {wanted.id}


@pytest.mark.parametrize("jql", ['summary = "anchor"', "summary is empty", 'status ~ "open"'])
def test_jira_refuses_operators_that_do_not_fit_their_field(jql: str) -> None:
    with pytest.raises(JqlError):
        Jql(seeded(5)).parse(jql)


def test_sentry_takes_a_list_of_values() -> None:
    world = seeded(60)
    matches = parse_query("level:[error, fatal] is:unresolved", world.now)

    levels = {level_of(issue) for issue in world.all_current() if matches(issue)}

    assert levels == {"error", "fatal"}
