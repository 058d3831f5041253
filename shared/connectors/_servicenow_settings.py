"""What an admin sets for a ServiceNow connection: tables, filter, field mapping, and the account."""

import re
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from shared.connectors._protocol import ConnectorCredentials, ConnectorSettings
from shared.connectors._servicenow_query import filter_columns, parse_zone
from shared.connectors._servicenow_records import Column


class ServiceNowSettings(ConnectorSettings):
    tables: tuple[str, ...] = Field(
        ("incident",),
        min_length=1,
        title="Tables",
        description="Task tables to read",
        examples=[["incident", "problem", "change_request"]],
    )
    query: str = Field(
        "",
        title="Filter",
        description="An encoded query that rows of every table must meet; copy it from the filter of a list",
        examples=["active=true^assignment_group.name=Field Operations"],
    )
    fields: dict[Column, str] = Field(
        {},
        title="Field mapping",
        description="Our column → the field of your instance, where it is not the usual one",
        examples=[{"severity": "u_severity", "project": "assignment_group"}],
    )
    time_zone: str = Field(
        "",
        title="Time zone of the account",
        description="Only where the account may not read its own user record",
        examples=["America/Los_Angeles"],
    )

    @field_validator("tables")
    @classmethod
    def _check_tables(cls, tables: tuple[str, ...]) -> tuple[str, ...]:
        for table in tables:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", table):
                raise ValueError(f"{table!r} is not the name of a table, such as incident")
        if len(set(tables)) < len(tables):
            raise ValueError("A table is named twice")
        if "task" in tables and len(tables) > 1:
            raise ValueError("task holds the rows of all task tables: name it alone, or the tables without it")
        return tables

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: str) -> str:
        query = query.strip().removesuffix("^EQ").strip("^")
        filter_columns(query)
        return query

    @field_validator("fields")
    @classmethod
    def _check_fields(cls, fields: dict[Column, str]) -> dict[Column, str]:
        for column, name in fields.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(
                    f"{column}: {name!r} is not the name of a field of the table itself, such as u_severity"
                )
        return fields

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        if name and parse_zone(name) is None:
            raise ValueError(f"{name!r} is not the name of a time zone, such as Europe/Berlin")
        return name


class ServiceNowCredentials(ConnectorCredentials):
    """User and password alone: basic authentication. With a client: OAuth, for the user or for the client itself.

    https://www.servicenow.com/docs/r/api-reference/rest-api-explorer/r_RESTOAuthExample.html
    """

    username: str = Field("", title="User name", examples=["tributary.reader"])
    password: SecretStr = Field(SecretStr(""), title="Password")
    client_id: str = Field("", title="OAuth client ID", description="Empty: user name and password with each request")
    client_secret: SecretStr = Field(SecretStr(""), title="OAuth client secret")

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        user = (bool(self.username), bool(self.password.get_secret_value()))
        client = (bool(self.client_id), bool(self.client_secret.get_secret_value()))
        if user[0] != user[1] or client[0] != client[1] or not (user[0] or client[0]):
            raise ValueError("Give a user name and its password, an OAuth client ID and its secret, or all four")
        return self

    @property
    def login(self) -> str:
        """Who requests are made as; "" where only the instance knows."""
        return self.username

    def grant(self) -> dict[str, str]:
        """The form that asks for a token."""
        form = {"client_id": self.client_id, "client_secret": self.client_secret.get_secret_value()}
        if not self.username:
            return {"grant_type": "client_credentials", **form}
        user = {"username": self.username, "password": self.password.get_secret_value()}
        return {"grant_type": "password", **form, **user}
