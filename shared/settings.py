"""The only reader of the environment.

Names are those of local.settings.example.json; in Azure they are app settings.
"""

from functools import cache
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class Settings(BaseSettings):
    """Validated once per process; a missing or broken value fails the start with its name."""

    model_config = SettingsConfigDict(extra="ignore", case_sensitive=False, frozen=True)

    database_url: SecretStr = Field(description="libpq URL of the PostgreSQL database, without password under Entra")
    database_auth: str = Field("password", pattern="^(password|entra)$", description="How new connections log in")
    database_pool_size: int = Field(8, ge=1, le=50)

    storage_connection: SecretStr = Field(
        SecretStr(""), alias="AzureWebJobsStorage", description="Connection string; empty when an identity is used"
    )
    storage_blob_uri: str = Field("", alias="AzureWebJobsStorage__blobServiceUri")
    blob_trigger_source: str = Field(
        "EventGrid", pattern="^(EventGrid|LogsAndContainerScan)$", description="Flex Consumption knows Event Grid only"
    )
    uploads_container: str = "uploads"
    files_container: str = "files"
    upload_url_minutes: int = Field(60, ge=1, le=24 * 60)

    environment: str = Field("azure", alias="TRIBUTARY_ENVIRONMENT", pattern="^(azure|local)$")
    bootstrap_api_key: SecretStr = Field(SecretStr(""), alias="TRIBUTARY_BOOTSTRAP_KEY")
    entra_tenant_id: str = ""
    entra_audiences: Annotated[tuple[str, ...], NoDecode] = ()
    entra_authority: str = "https://login.microsoftonline.com"
    entra_v1_issuer: str = "https://sts.windows.net"

    requests_per_minute: int = Field(100, ge=1)
    max_request_bytes: int = Field(50 * MEBIBYTE, ge=1)
    webhooks_per_minute: int = Field(3_000, ge=1, description="Calls of webhooks from one address")
    max_webhook_bytes: int = Field(25 * MEBIBYTE, ge=1)
    delivery_days: int = Field(30, ge=1, le=36_500, description="How long webhook deliveries are kept")
    max_file_bytes: int = Field(10 * 1024 * MEBIBYTE, ge=1, description="Largest file taken from the container")
    job_concurrency: int = Field(3, ge=1, le=100)
    load_concurrency: int = Field(3, ge=1, le=16, description="Batches one worker process loads side by side")
    batch_bytes: int = Field(8 * MEBIBYTE, ge=1024)
    retention_days: int = Field(7, ge=1, le=36_500)

    credential_encryption_key: SecretStr = Field(
        SecretStr(""), description="Key ring `id:base64 of 32 bytes`, the newest first, comma-separated"
    )
    credential_key_vault_key: str = Field(
        "", description="URL of an RSA key in Key Vault, which wraps instead of the key ring"
    )
    allow_private_addresses: bool = Field(
        False, description="Connections may lead to http and private addresses: for a local stack only"
    )
    sync_slice_seconds: float = Field(60, gt=0, description="How long one activity of a sync walks")
    sync_part_tries: int = Field(4, ge=1, description="Tries of a part of a sync before it counts as failed")
    schedule_default_cron: str = "*/15 * * * *"

    jira_base_url: str = ""
    jira_user_email: str = ""
    jira_api_token: SecretStr = SecretStr("")
    jira_default_project: str = ""
    servicenow_instance: str = Field("", description="Name of the instance, or its URL")
    servicenow_username: str = ""
    servicenow_password: SecretStr = SecretStr("")
    github_token: SecretStr = SecretStr("")
    gitlab_token: SecretStr = SecretStr("")
    gitlab_url: str = "https://gitlab.com"
    sentry_auth_token: SecretStr = SecretStr("")
    sentry_org: str = ""

    telemetry_file: str = Field("", description="Spans and metrics go to this file as JSON lines; `-` for stderr")
    applicationinsights_connection_string: SecretStr = SecretStr("")
    python_applicationinsights_enable_telemetry: bool = False

    @field_validator("entra_audiences", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


@cache
def settings() -> Settings:
    """The settings of this process."""
    return Settings()  # pyright: ignore[reportCallIssue]  # the environment supplies what has no default
