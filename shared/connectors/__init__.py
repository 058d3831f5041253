"""The supported trackers, one module each, found by looking: `ls` this folder."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from shared.connectors._protocol import Connector


@cache
def connectors() -> Mapping[str, type[Connector]]:
    """Every source module's connector class, by source. A module names its class in `CONNECTOR`."""
    found: dict[str, type[Connector]] = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            connector: type[Connector] = importlib.import_module(f"{__name__}.{module.name}").CONNECTOR
            found[connector.source] = connector
    return found
