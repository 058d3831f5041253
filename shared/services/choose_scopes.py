"""Which of a connection's projects or repositories somebody named."""

from collections.abc import Sequence

from shared.connectors._protocol import Scope
from shared.domain.errors import InvalidRequestError


def choose_scopes(found: Sequence[Scope], names: Sequence[str]) -> list[Scope]:
    """Those with one of the names or ids, however they are capitalized; all without names.

    Raises InvalidRequestError if a name is of none.
    """
    wanted = {name.casefold() for name in names}
    of_each = {scope: {scope.name.casefold(), scope.id.casefold()} for scope in found}
    known = {name for each in of_each.values() for name in each}
    if unknown := sorted(name for name in names if name.casefold() not in known):
        raise InvalidRequestError(
            f"The connection does not read {', '.join(unknown)}",
            hint="Its test and GET …/state name what it reads",
            fields={"scopes": "unknown"},
        )
    return [scope for scope in found if not wanted or wanted & of_each[scope]]
