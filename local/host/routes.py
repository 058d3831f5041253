"""Route templates of HTTP triggers, matched as ASP.NET does for the real host: the most literal template wins."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from local.host.worker import Function

PARAMETER = re.compile(r"\{(?P<rest>\**)(?P<name>\w+)(?::(?P<constraint>[^}?]+))?(?P<optional>\?)?\}")
CONSTRAINTS = {"int": r"-?\d+", "long": r"-?\d+", "guid": r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}"}
LITERAL, CONSTRAINED, FREE, REST = range(1, 5)


@dataclass(frozen=True)
class Route:
    """One template; `methods` is empty when every method is served."""

    function: Function
    pattern: re.Pattern[str]
    precedence: tuple[int, ...]
    methods: frozenset[str]

    def match(self, method: str, path: str) -> dict[str, str] | None:
        if self.methods and method not in self.methods:
            return None
        found = self.pattern.fullmatch(path)
        return found and {name: unquote(value) for name, value in found.groupdict().items() if value is not None}


class RouteTable:
    """All routes of an app, most specific first."""

    def __init__(self, functions: Sequence[Function], prefix: str) -> None:
        self._routes = sorted((_compile(function, prefix) for function in functions), key=lambda r: r.precedence)

    def find(self, method: str, path: str) -> tuple[Function, dict[str, str]] | None:
        """The function for a raw request path, and its decoded route parameters."""
        path = path.strip("/")
        matches = ((route.function, route.match(method, path)) for route in self._routes)
        return next(((function, found) for function, found in matches if found is not None), None)


def _compile(function: Function, prefix: str) -> Route:
    trigger = function.trigger
    template = "/".join(part.strip("/") for part in (prefix, str(trigger.get("route") or function.name)) if part)
    segments = [_segment(text) for text in template.split("/")]
    pattern = "".join(pattern for pattern, _ in segments).removeprefix("/")
    return Route(
        function=function,
        pattern=re.compile(pattern, re.IGNORECASE),
        precedence=tuple(rank for _, rank in segments),
        methods=_methods(trigger.get("methods")),
    )


def _segment(text: str) -> tuple[str, int]:
    """The pattern of one segment with its leading slash, and its rank."""
    parameter = PARAMETER.fullmatch(text)
    if parameter is None:
        return "/" + re.escape(text), LITERAL
    name = parameter["name"]
    if parameter["rest"]:
        return f"(?:/(?P<{name}>.*))?", REST
    value = f"/(?P<{name}>{CONSTRAINTS.get(parameter['constraint'] or '', '[^/]+')})"
    return (f"(?:{value})?" if parameter["optional"] else value), CONSTRAINED if parameter["constraint"] else FREE


def _methods(value: Any) -> frozenset[str]:
    return frozenset(str(method).upper() for method in value or ())
