"""Settings for tests: complete without any environment; a test states what matters to it."""

from typing import Any

from shared.settings import Settings


def make_settings(**overrides: Any) -> Settings:
    """Settings of a local installation; overrides go by field name."""
    values: dict[str, Any] = {
        "database_url": "postgresql://nobody@127.0.0.1:1/none",
        "environment": "local",
        **overrides,
    }
    return Settings(**{Settings.model_fields[name].alias or name: value for name, value in values.items()})
