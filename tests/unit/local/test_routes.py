"""Routes of HTTP functions: what matches, what wins, what the parameters are."""

import pytest

from local.host.routes import RouteTable
from local.host.worker import Function


def function(route: str, *methods: str) -> Function:
    return Function(
        name=route, id=route, trigger={"type": "httpTrigger", "route": route, "methods": methods}, client_parameters=()
    )


TABLE = RouteTable(
    [
        function("{*rest}"),
        function("import/{*rest}", "GET", "POST"),
        function("import/status/{job}", "GET"),
        function("import/status/latest", "GET"),
        function("items/{id:int}"),
        function("items/{name}"),
        function("pages/{number?}"),
    ],
    "api",
)


@pytest.mark.parametrize(
    ("method", "path", "route", "parameters"),
    [
        ("GET", "/api/import/status/latest", "import/status/latest", {}),
        ("GET", "/api/import/status/7/", "import/status/{job}", {"job": "7"}),
        ("GET", "/API/Import/Status/a%2Fb", "import/status/{job}", {"job": "a/b"}),
        ("POST", "/api/import/status/7", "import/{*rest}", {"rest": "status/7"}),
        ("POST", "/api/import", "import/{*rest}", {}),
        ("DELETE", "/api/import/x", "{*rest}", {"rest": "import/x"}),
        ("GET", "/api/items/12", "items/{id:int}", {"id": "12"}),
        ("GET", "/api/items/twelve", "items/{name}", {"name": "twelve"}),
        ("GET", "/api/pages", "pages/{number?}", {}),
        ("GET", "/api/pages/3", "pages/{number?}", {"number": "3"}),
    ],
)
def test_the_most_specific_route_wins(method: str, path: str, route: str, parameters: dict[str, str]) -> None:
    found = TABLE.find(method, path)

    assert found is not None
    assert (found[0].name, found[1]) == (route, parameters)


@pytest.mark.parametrize("path", ["/", "/other", "/apix/items/1"])
def test_paths_outside_the_prefix_match_nothing(path: str) -> None:
    assert TABLE.find("GET", path) is None
