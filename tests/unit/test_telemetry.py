"""Log lines as an operator reads them."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared import telemetry
from tests.support.settings import make_settings


class Lines:
    """A logger that writes where the test can read."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(telemetry.JSONFormatter())
        handler.addFilter(telemetry.ContextFilter())
        self.log = logging.getLogger("shared.services.sample")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        self.log.handlers = [handler]

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    yield lines
    lines.log.handlers = []
    lines.log.propagate = True


def test_a_record_is_one_line_with_its_action_and_numbers(lines: Lines) -> None:
    lines.log.info("Batch done\nin two lines", extra={"action": "batch_done", "rows": 41})

    (line,) = lines.read()
    assert line["time"].endswith("+00:00")
    assert (line["level"], line["logger"]) == ("info", "shared.services.sample")
    assert (line["message"], line["action"], line["rows"]) == ("Batch done\nin two lines", "batch_done", 41)


def test_job_and_batch_of_the_context_are_in_every_record(lines: Lines) -> None:
    with telemetry.log_context(job_id="4e1"):
        with telemetry.log_context(batch=3, file=None):
            lines.log.info("Inside")
        lines.log.info("Outside of the batch")
    lines.log.info("Outside of the job")

    inside, outside_batch, outside_job = lines.read()
    assert (inside["job_id"], inside["batch"], "file" in inside) == ("4e1", 3, False)
    assert (outside_batch["job_id"], "batch" in outside_batch) == ("4e1", False)
    assert "job_id" not in outside_job


async def test_contexts_of_tasks_side_by_side_do_not_mix_and_reach_threads(lines: Lines) -> None:
    async def load(batch: int) -> None:
        with telemetry.log_context(batch=batch):
            await asyncio.sleep(0)
            await asyncio.to_thread(lines.log.info, "Loaded %s", batch)

    await asyncio.gather(*(load(batch) for batch in range(5)))

    assert all(line["message"] == f"Loaded {line['batch']}" for line in lines.read())


def fail_to_reach(url: str) -> None:
    raise ConnectionError(f"cannot reach {url}")


def test_secrets_appear_in_no_part_of_a_record(lines: Lines) -> None:
    url = "postgresql://importer:s3cret@db.example/tributary"
    try:
        fail_to_reach(url)
    except ConnectionError:
        lines.log.exception("Lost %s", url, extra={"headers": {"Authorization": "Bearer s3cret"}, "url": url})

    (line,) = lines.read()
    assert "s3cret" not in json.dumps(line)
    assert "ConnectionError" in line["exception"]
    assert "test_telemetry.py" in line["exception"]


def test_records_inside_a_span_carry_its_ids(lines: Lines) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    with TracerProvider().get_tracer("test").start_as_current_span("load_batch") as span:
        lines.log.info("Inside")

    assert lines.read()[0]["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert lines.read()[0]["span_id"] == f"{span.get_span_context().span_id:016x}"


def run_configured(body: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a body after configure() in a process of its own: providers can be set once per process only."""
    program = "\n".join(
        [
            "import logging",
            "from shared import telemetry",
            "from shared.domain.job import Counts, JobState",
            "from tests.support.settings import make_settings",
            f"telemetry.configure(make_settings(**{settings!r}))",
            body,
        ]
    )
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)


def test_spans_and_metrics_go_to_the_file_that_is_set(tmp_path: Path) -> None:
    target = tmp_path / "telemetry.jsonl"

    done = run_configured(
        "with telemetry.span('load_batch', phase='load'):\n"
        "    logging.getLogger('shared.x').info('Inside')\n"
        "telemetry.record_batch(Counts(rows=3, created=2, rejected=1), seconds=0.5)\n"
        "telemetry.jobs_finished(JobState.COMPLETED)",
        telemetry_file=str(target),
    )

    written = [json.loads(line) for line in target.read_text().splitlines()]
    span = next(each for each in written if each.get("name") == "load_batch")
    assert span["attributes"] == {"phase": "load"}
    assert json.loads(done.stderr)["trace_id"] == span["context"]["trace_id"].removeprefix("0x")
    assert points(written, "records_total") == {"created": 2, "rejected": 1}
    assert points(written, "jobs_finished") == {"completed": 1}


def points(written: list[dict[str, Any]], metric: str) -> dict[str, int]:
    """What a counter counted, by its only attribute."""
    metrics = [
        each
        for line in written
        for resource in line.get("resource_metrics", [])
        for scope in resource["scope_metrics"]
        for each in scope["metrics"]
        if each["name"] == metric
    ]
    return {next(iter(point["attributes"].values())): point["value"] for point in metrics[-1]["data"]["data_points"]}


def test_without_an_exporter_nothing_of_the_sdk_is_loaded() -> None:
    done = run_configured(
        "import sys\n"
        "with telemetry.span('load_batch'): pass\n"
        "telemetry.record_batch(Counts(rows=1, created=1), seconds=0.5)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )

    assert done.stdout.strip() == "[]"


def test_a_connection_string_without_the_worker_switch_is_pointed_out() -> None:
    done = run_configured("", applicationinsights_connection_string="InstrumentationKey=0")

    assert json.loads(done.stderr)["action"] == "telemetry_incomplete"


def test_handlers_of_the_platform_are_kept_and_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    platform = logging.StreamHandler(stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [platform])

    telemetry.configure(make_settings(environment="azure"))
    telemetry.configure(make_settings(environment="azure"))
    logging.getLogger("shared.sample").info("Key trib_Zm9vYmFyYmF6cXV4 created")

    assert logging.getLogger().handlers == [platform]
    assert stream.getvalue() == "Key trib_[redacted] created\n"
