"""Connections that app settings define."""

from typing import Any

import pytest

from shared.connectors import connectors
from shared.services.default_connections import default_connections, incomplete_connections
from tests.support.settings import make_settings


@pytest.mark.parametrize(
    ("settings", "slugs"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({"jira_base_url": "https://a.example"}, [], id="half a Jira"),
        pytest.param(
            {"jira_base_url": "https://a.example", "jira_api_token": "t", "jira_user_email": "a@b.example"},
            ["jira"],
            id="Jira",
        ),
        pytest.param({"github_token": "t", "gitlab_token": "t"}, ["github", "gitlab"], id="GitHub and GitLab"),
        pytest.param({"sentry_auth_token": "t"}, [], id="Sentry without organization"),
        pytest.param(
            {"servicenow_instance": "dev1", "servicenow_username": "u", "servicenow_password": "p"},
            ["servicenow"],
            id="ServiceNow",
        ),
    ],
)
def test_complete_settings_define_a_connection(settings: dict[str, Any], slugs: list[str]) -> None:
    assert [new.slug for new in default_connections(make_settings(**settings))] == slugs


def test_defaults_fit_their_sources() -> None:
    settings = make_settings(
        jira_base_url="https://a.example",
        jira_api_token="t",
        jira_user_email="a@b.example",
        jira_default_project="OPS",
        servicenow_instance="dev1",
        servicenow_username="u",
        servicenow_password="p",
        github_token="t",
        gitlab_token="t",
        sentry_auth_token="t",
        sentry_org="tidewater",
    )

    for new in default_connections(settings):
        found = connectors()[new.source]
        assert found.Settings.model_validate(new.settings)
        assert found.Credentials.model_validate(new.credentials)


def test_a_jira_without_an_address_takes_the_token_alone() -> None:
    settings = make_settings(jira_base_url="https://a.example", jira_api_token="t")

    (new,) = default_connections(settings)

    assert connectors()["jira"].Credentials.model_validate(new.credentials)


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({}, []),
        ({"jira_base_url": "https://a.example"}, [("jira", ["JIRA_API_TOKEN"])]),
        ({"sentry_auth_token": "t"}, [("sentry", ["SENTRY_ORG"])]),
        ({"servicenow_instance": "dev1", "servicenow_password": "p"}, [("servicenow", ["SERVICENOW_USERNAME"])]),
        ({"sentry_auth_token": "t", "sentry_org": "tidewater"}, []),
    ],
    ids=str,
)
def test_what_half_a_connection_lacks_is_named(settings: dict[str, Any], missing: list[Any]) -> None:
    assert incomplete_connections(make_settings(**settings)) == missing


def test_an_instance_name_becomes_its_address() -> None:
    named = make_settings(servicenow_instance="dev1", servicenow_username="u", servicenow_password="p")

    assert next(default_connections(named)).base_url == "https://dev1.service-now.com"
