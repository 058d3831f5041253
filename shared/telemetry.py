"""Logs, spans and metrics: what the process tells about itself, without the secrets it handles.

A log call names its `action` and its numbers in `extra`; the job, batch and trace it belongs to are added here, and
secrets are taken out of message, extras and exception text.

- On one machine, records are JSON lines on stderr, and spans and metrics go to `telemetry_file` if one is set.
- In Azure the worker exports. With APPLICATIONINSIGHTS_CONNECTION_STRING and
  PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY=true (both set by infra/) it configures Azure Monitor itself before our
  code is loaded and tells the host not to forward its logs. A second set-up here would send everything twice, so
  `configure` only adds context and redaction to the handlers it finds.

The API of OpenTelemetry is imported when it is first used and its SDK only where this module exports.
"""

import json
import logging
import sys
import traceback
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from shared.domain.job import Counts, JobState
from shared.domain.redaction import redact, redact_value
from shared.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram
    from opentelemetry.trace import Span

_NAME = "tributary"
_OWN_LOGGERS = ("shared", "functions", "local")
_METRIC_SECONDS = 15
_STANDARD_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_context: ContextVar[Mapping[str, Any]] = ContextVar("log_context", default={})  # noqa: B039  # never changed in place


def configure(settings: Settings) -> None:
    """Set up logging and exporters for this process; calling it again changes nothing."""
    root = logging.getLogger()
    if settings.environment == "local" or not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JSONFormatter())
        root.handlers = [handler]
    for handler in root.handlers:
        if not any(isinstance(existing, ContextFilter) for existing in handler.filters):
            handler.addFilter(ContextFilter())
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("azure", "httpx", "durabletask"):
        logging.getLogger(name).setLevel(logging.WARNING)
    worker_exports = settings.python_applicationinsights_enable_telemetry
    if settings.applicationinsights_connection_string.get_secret_value() and not worker_exports:
        logging.getLogger(__name__).warning(
            "Nothing is sent to Application Insights: set PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY=true",
            extra={"action": "telemetry_incomplete"},
        )
    if settings.telemetry_file and not worker_exports:
        _export_to(settings.telemetry_file)


@contextmanager
def log_context(**values: Any) -> Generator[None]:
    """Add values such as job_id and batch to every record logged inside, in this task and the threads it starts."""
    token = _context.set({**_context.get(), **{name: value for name, value in values.items() if value is not None}})
    try:
        yield
    finally:
        _context.reset(token)


@contextmanager
def span(name: str, **attributes: str | float | bool) -> Generator["Span"]:
    """A span around a piece of work; its attributes must be few-valued words and numbers, never payloads."""
    from opentelemetry import trace

    with trace.get_tracer(_NAME).start_as_current_span(name, attributes=attributes) as current:
        yield current


def record_batch(counts: Counts, *, seconds: float) -> None:
    """Count the records of a finished batch by what became of them, and its time."""
    for result, number in counts.model_dump(exclude={"rows"}).items():
        if number:
            _records_total().add(number, {"result": result})
    _batch_seconds().record(seconds)


def jobs_finished(state: JobState) -> None:
    """Count a job that ended."""
    _jobs_finished().add(1, {"state": state.value})


@cache
def _records_total() -> "Counter":
    from opentelemetry import metrics

    return metrics.get_meter(_NAME).create_counter("records_total", description="Records by what became of them")


@cache
def _jobs_finished() -> "Counter":
    from opentelemetry import metrics

    return metrics.get_meter(_NAME).create_counter("jobs_finished", description="Jobs by the state they ended in")


@cache
def _batch_seconds() -> "Histogram":
    from opentelemetry import metrics

    return metrics.get_meter(_NAME).create_histogram("batch_seconds", unit="s", description="Time to load a batch")


class ContextFilter(logging.Filter):
    """Completes a record with context and trace, and redacts it; sits on handlers, which see every logger's records."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record in place; never drops one."""
        record.msg, record.args = redact(record.getMessage()), None
        for name, value in _context.get().items():
            record.__dict__.setdefault(name, value)
        for name, value in _extras(record):
            record.__dict__[name] = redact_value(name, value)
        _redact_exception(record)
        for name, value in _trace_ids().items():
            record.__dict__.setdefault(name, value)
        return True


class JSONFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, then whatever the record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= dict(_extras(record))
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, default=str, ensure_ascii=False)


def _extras(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in list(record.__dict__.items()) if name not in _STANDARD_ATTRIBUTES)


def _redact_exception(record: logging.LogRecord) -> None:
    """Exporters format the exception themselves, so one whose text holds a secret is replaced by its cleaned text."""
    if not record.exc_info or record.exc_info[0] is None:
        return
    text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
    cleaned = redact(text)
    if cleaned != text:
        record.exc_info = record.exc_text = None
        record.__dict__["exception"] = cleaned


def _trace_ids() -> dict[str, str]:
    # Where nobody has imported it there is no span to ask for.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


@cache
def _export_to(target: str) -> None:
    """Send spans and metrics to a file or stderr, as JSON lines; flushed at exit."""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    out: IO[str] = sys.stderr if target == "-" else Path(target).open("a", encoding="utf-8")  # noqa: SIM115  # open for the life of the process
    resource = Resource.create({SERVICE_NAME: _NAME})
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(
        BatchSpanProcessor(ConsoleSpanExporter(out=out, formatter=lambda each: each.to_json(indent=None) + "\n"))
    )
    trace.set_tracer_provider(tracing)
    exporter = ConsoleMetricExporter(out=out, formatter=lambda data: data.to_json(indent=None) + "\n")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=_METRIC_SECONDS * 1000)
    metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=[reader]))
