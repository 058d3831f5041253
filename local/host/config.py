"""What the host takes from host.json and the app settings, with the defaults of the real host."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTING_REFERENCE = re.compile(r"%([^%]+)%")


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """Settings of the listeners; names follow host.json."""

    app_dir: Path
    state_dir: Path
    port: int
    master_key: str
    settings: Mapping[str, str]
    route_prefix: str = "api"
    activity_concurrency: int = 10
    orchestrator_concurrency: int = 10
    queue_batch_size: int = 16
    queue_max_attempts: int = 5
    queue_retry_seconds: int = 0
    queue_messages_are_base64: bool = True
    blob_concurrency: int = 8
    blob_max_attempts: int = 5
    worker_processes: int = 1

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def resolve(self, text: str) -> str:
        """Replace `%NAME%` by the app setting of that name, as binding expressions do."""
        return SETTING_REFERENCE.sub(lambda match: self.settings[match[1]], text)

    def is_disabled(self, function: str) -> bool:
        """Whether an app setting switches the function off; the underscores are the spelling for shells."""
        names = (f"AzureWebJobs.{function}.Disabled", f"AzureWebJobs__{function}__Disabled")
        return any(self.settings.get(name, "").lower() in {"true", "1"} for name in names)

    def connection_string(self, binding: Mapping[str, Any]) -> str:
        """The storage connection string a binding names."""
        name = str(binding.get("connection") or "AzureWebJobsStorage")
        try:
            return self.settings[name]
        except KeyError:
            raise SystemExit(f"App setting {name} is missing: a function's storage connection needs it") from None


def read_config(app_dir: Path, state_dir: Path, port: int, settings: Mapping[str, str]) -> HostConfig:
    """Read host.json beside the function app; what it leaves out has the platform's default."""
    path = app_dir / "host.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    extensions: dict[str, dict[str, Any]] = content.get("extensions", {})
    durable = extensions.get("durableTask", {})
    queues = extensions.get("queues", {})
    blobs = extensions.get("blobs", {})
    return HostConfig(
        app_dir=app_dir,
        state_dir=state_dir,
        port=port,
        master_key=settings.get("FUNCTIONS_MASTER_KEY", ""),
        settings=settings,
        route_prefix=extensions.get("http", {}).get("routePrefix", "api"),
        activity_concurrency=durable.get("maxConcurrentActivityFunctions", 10),
        orchestrator_concurrency=durable.get("maxConcurrentOrchestratorFunctions", 10),
        queue_batch_size=queues.get("batchSize", 16),
        queue_max_attempts=queues.get("maxDequeueCount", 5),
        queue_retry_seconds=_seconds(queues.get("visibilityTimeout", "00:00:00")),
        queue_messages_are_base64=queues.get("messageEncoding", "base64") == "base64",
        blob_concurrency=blobs.get("maxDegreeOfParallelism", 8),
        blob_max_attempts=blobs.get("poisonBlobThreshold", 5),
        worker_processes=int(settings.get("FUNCTIONS_WORKER_PROCESS_COUNT") or 1),
    )


def _seconds(time_span: str) -> int:
    hours, minutes, seconds = time_span.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(float(seconds))
