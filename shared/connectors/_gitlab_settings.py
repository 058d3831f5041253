"""What an admin may set for a GitLab connection: which projects are read, and who reads them."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, StringConstraints, ValidationInfo, field_validator

from shared.connectors._protocol import ConnectorSettings, OAuthCredentials


def _without_address(value: object) -> object:
    """`group/project`, also where the address of a page was pasted."""
    if not isinstance(value, str):
        return value
    return re.sub(r"^https?://[^/]+/(groups/)?|/-/.*$|(\.git)?/*$", "", value.strip())


PathOrId = Annotated[
    str,
    BeforeValidator(_without_address),
    StringConstraints(pattern=r"^\.?\w[\w.+-]*(/\.?\w[\w.+-]*)*$", max_length=500),
]


class GitLabSettings(ConnectorSettings):
    """Which projects to read."""

    projects: tuple[PathOrId, ...] = Field(
        default=(), title="Projects", description="Paths or ids", examples=[["tidewater/harbor"]]
    )
    groups: tuple[PathOrId, ...] = Field(
        default=(),
        title="Groups",
        description="All projects in them, subgroups too. Neither: all the account is a member of",
        examples=[["tidewater"]],
    )


class TokenKind(StrEnum):
    """How a token is sent."""

    ACCESS_TOKEN = "access_token"  # noqa: S105 - a kind, not a secret
    OAUTH = "oauth"


class GitLabCredentials(OAuthCredentials):
    """A personal, project or group access token, or an OAuth access token; or an application that was authorized."""

    token: SecretStr = Field(
        SecretStr(""), title="Token", description="With the scope read_api", examples=["glpat-…"], validate_default=True
    )
    kind: TokenKind = Field(default=TokenKind.ACCESS_TOKEN, title="Kind of token")

    @field_validator("token")
    @classmethod
    def _check_kind(cls, token: SecretStr, info: ValidationInfo) -> SecretStr:
        application = {bool(info.data.get(name)) for name in ("client_id", "client_secret", "refresh_token")}
        if len(application) > 1 or application == {bool(token.get_secret_value().strip())}:
            raise ValueError("Give a token, or an OAuth client ID, its secret and a refresh token")
        return token
