"""What an admin may set for a Jira connection, and the guard that keeps a filter from leaving its brackets."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationInfo, field_validator

from shared.connectors._protocol import ConnectorSettings, OAuthCredentials

_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _checked_filter(text: str) -> str:
    """The filter, if it is safe between brackets: all closed, nothing sorted. ValueError names the fix."""
    if _CONTROL.search(text):
        raise ValueError("The filter holds control characters; write it again by hand")
    bare = _without_quoted(text)
    depth = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            raise ValueError("The filter closes a bracket that it did not open")
    if depth:
        raise ValueError("The filter leaves a bracket open")
    if _ORDER.search(bare):
        raise ValueError("Leave ORDER BY out of the filter; Tributary sorts by key")
    return text.strip()


def _without_quoted(text: str) -> str:
    """What stands outside quotes. A backslash takes the meaning from the next character, in quotes and outside.

    https://support.atlassian.com/jira-software-cloud/docs/jql-reserved-characters-and-words/
    """
    bare: list[str] = []
    quote = ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            if next(characters, None) is None:
                raise ValueError("The filter ends in a backslash")
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
            bare.append(" ")
        else:
            bare.append(character)
    if quote:
        raise ValueError("The filter leaves a quote open")
    return "".join(bare)


def _plain(text: str) -> str:
    if _CONTROL.search(text) or "\n" in text or "\r" in text:
        raise ValueError("A name holds control characters")
    return text


Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255), AfterValidator(_plain)]


class Deployment(StrEnum):
    """The kind of Jira."""

    AUTO = "auto"
    CLOUD = "cloud"
    DATACENTER = "datacenter"


class MappedField(StrEnum):
    """Our fields that a Jira field may fill."""

    SEVERITY = "severity"
    ENVIRONMENT = "environment"
    STACK_TRACE = "stack_trace"
    STORY_POINTS = "story_points"
    DUE_ON = "due_on"
    RESOLUTION = "resolution"
    COMPONENTS = "components"
    LABELS = "labels"


class JiraSettings(ConnectorSettings):
    """What of a Jira site is read."""

    projects: tuple[Name, ...] = Field(
        (), title="Projects", description="Keys or ids; empty: all that the account can see", examples=[["OPS", "WEB"]]
    )
    jql: Annotated[str, AfterValidator(_checked_filter)] = Field(
        "",
        title="Filter",
        description="JQL that issues have to fulfil besides; no ORDER BY",
        max_length=5_000,
        examples=["labels = customer AND issuetype != Epic"],
    )
    deployment: Deployment = Field(
        Deployment.AUTO, title="Kind of Jira", description="auto asks the site; set it where a proxy hides the answer"
    )
    field_mapping: Mapping[MappedField, Name] = Field(
        {},
        title="Field mapping",
        description="Our field, and the id or the name of the Jira field that fills it",
        examples=[{"severity": "Bug severity", "stack_trace": "customfield_10071"}],
    )
    tracked_accounts: tuple[Name, ...] = Field(
        (),
        max_length=200,
        title="Tracked accounts",
        description="Only issues these accounts report or are assigned to; account ids, on Data Center user names",
    )

    @property
    def chooses(self) -> bool:
        return bool(self.jql or self.tracked_accounts)


class JiraCredentials(OAuthCredentials):
    """A token, with an e-mail address or alone; or an OAuth client, of a service account or of an authorized app."""

    email: str = Field(
        "",
        title="E-mail address",
        description="Of the account the API token belongs to; empty for personal access tokens and OAuth",
        pattern=r"^[^:\x00-\x1f\x7f]*$",
        examples=["tributary@tidewater.example"],
    )
    token: SecretStr = Field(
        SecretStr(""),
        title="Token",
        description="API token (Cloud), personal access token (Data Center) or OAuth access token",
        validate_default=True,
    )

    @field_validator("token")
    @classmethod
    def _check_kind(cls, token: SecretStr, info: ValidationInfo) -> SecretStr:
        held = bool(token.get_secret_value().strip())
        client, secret, refresh = (bool(info.data.get(f)) for f in ("client_id", "client_secret", "refresh_token"))
        if client != secret or held == client or refresh > client:
            raise ValueError("Give a token, or an OAuth client ID and its secret, with a refresh token if it has one")
        return token
