"""Time spent on issues, entry by entry: REST tells sums only, GraphQL who spent what and when.

The entries have to add up to REST's sum. Where they do not, or a server does not answer this query, an issue has one
worklog with the sum. https://docs.gitlab.com/api/graphql/reference/#timelog
"""

from collections.abc import Mapping
from typing import Any

from shared.connectors._gitlab_api import GitLabAPI
from shared.connectors._gitlab_records import is_object, project_of, seconds_spent
from shared.connectors._gitlab_walk import Rows
from shared.connectors._http import together
from shared.domain.errors import SourceError, Trouble

_FIELDS = """
nodes { id spentAt timeSpent summary note { body } user { username name } }
pageInfo { hasNextPage endCursor }
"""
_OF_ISSUES = f"""
query timeSpent($project: ID!, $iids: [String!]) {{
  project(fullPath: $project) {{
    issues(iids: $iids, first: 100) {{ nodes {{ iid timelogs(first: 100) {{ {_FIELDS} }} }} }}
  }}
}}
"""
_OF_ISSUE = f"""
query moreTimeSpent($project: ID!, $iid: String!, $after: String!) {{
  project(fullPath: $project) {{ issue(iid: $iid) {{ timelogs(first: 100, after: $after) {{ {_FIELDS} }} }} }}
}}
"""
# How a server refuses a query it cannot answer; of other trouble the next try may know more.
_CANNOT = {
    Trouble.NOT_FOUND,
    Trouble.PERMISSION_DENIED,
    Trouble.BAD_REQUEST,
    Trouble.SCHEMA_CHANGED,
    Trouble.AUTH_INVALID,
}


async def time_entries(api: GitLabAPI, rows: Rows) -> dict[str, Rows]:
    """Issue id → its entries, for those of some issues of one project whose entries are known to be all."""
    try:
        return await _time_entries(api, rows)
    except (KeyError, TypeError, AttributeError):
        # GraphQL of another version: the sums are as good as they were without it.
        return {}


async def _time_entries(api: GitLabAPI, rows: Rows) -> dict[str, Rows]:
    project = project_of(rows[0])
    if project is None:
        return {}
    found = await _ask(api, _OF_ISSUES, {"project": project, "iids": [str(row["iid"]) for row in rows]})
    logs = {str(issue["iid"]): issue["timelogs"] for issue in _nodes(found.get("issues"))}
    here = [row for row in rows if str(row["iid"]) in logs]
    whole = await together(_whole(api, project, str(row["iid"]), logs[str(row["iid"])]) for row in here)
    return {
        str(row["id"]): entries
        for row, entries in zip(here, whole, strict=True)
        if sum(entry["timeSpent"] for entry in entries) == seconds_spent(row)
    }


async def _whole(api: GitLabAPI, project: str, iid: str, logs: Mapping[str, Any]) -> Rows:
    entries = _nodes(logs)
    while logs["pageInfo"]["hasNextPage"]:
        variables = {"project": project, "iid": iid, "after": logs["pageInfo"]["endCursor"]}
        issue = (await _ask(api, _OF_ISSUE, variables)).get("issue")
        if not is_object(issue):
            break
        logs = issue["timelogs"]
        entries += _nodes(logs)
    return entries


async def _ask(api: GitLabAPI, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What a query says of a project; nothing where it cannot be answered: GraphQL's errors come with status 200."""
    try:
        data = await api.graphql(query, variables)
    except SourceError as error:
        if error.trouble not in _CANNOT:
            raise
        return {}
    project = data.get("project")
    return project if is_object(project) else {}


def _nodes(connection: Any) -> Rows:
    return [node for node in connection["nodes"] if is_object(node)] if is_object(connection) else []
