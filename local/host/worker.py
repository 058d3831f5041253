"""Microsoft's Python worker library: it indexes function_app.py and invokes functions exactly as it does in Azure.

`native_invocation` is the library's internal, protobuf-free entry, which is why its version is pinned and why no other
module here imports it. The library keeps one global registry: one worker per process.
"""

import json
import logging
import os
import sys
import traceback
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from azure_functions_runtime import handle_event
from azure_functions_runtime.bindings.datumdef import Datum
from azure_functions_runtime.bindings.meta import load_binding_registry
from azure_functions_runtime.native_invocation import invocation_request_native
from azure_functions_runtime.utils.threadpool import start_threadpool_executor

log = logging.getLogger(__name__)

OUTPUTS_SERVED = {"http"}


class FunctionFailedError(Exception):
    """A function raised: the class and the words of what it raised, and where."""

    def __init__(self, function: str, kind: str, message: str, trace: str) -> None:
        super().__init__(function, kind, message, trace)
        self.kind, self.message, self.trace = kind, message, trace

    @classmethod
    def because(cls, function: str, cause: BaseException) -> Self:
        """What a cause says; never nothing, which the engine takes for a success."""
        trace = "".join(traceback.format_exception(cause))
        return cls(function, type(cause).__name__, str(cause) or repr(cause), trace)

    def __str__(self) -> str:
        return f"{self.args[0]} raised {self.kind}: {self.message}"


@dataclass(frozen=True)
class Function:
    """One indexed function; bindings are the JSON the host of Azure would receive."""

    name: str
    id: str
    trigger: Mapping[str, Any]
    client_parameters: tuple[str, ...]

    @property
    def kind(self) -> str:
        return self.trigger["type"]


class _BindingInfo(SimpleNamespace):
    undefined = 0
    out = 1
    inout = 2


_failure: ContextVar[BaseException | None] = ContextVar("failure", default=None)


class _FailureCapture(logging.Filter):
    """Keeps the exception object: the library reports a failure as text only, but logs it where it is caught.

    The record itself is dropped, because the host logs the failure with the name of the function.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and str(record.msg).startswith("Native"):
            _failure.set(record.exc_info[1])
            return False
        return True


class Worker:
    """The functions of one app directory, run in this process."""

    def __init__(self, app_dir: Path, durable_client: str) -> None:
        self._durable_client = durable_client
        logging.getLogger("azure.functions").addFilter(_FailureCapture())
        self.functions = _index(app_dir)

    async def invoke(
        self,
        function: Function,
        value: Datum,
        metadata: Mapping[str, Datum] | None = None,
        *,
        trace_parent: str = "",
    ) -> Datum | None:
        """Call a function with its trigger's value; raises FunctionFailedError after logging the traceback."""
        inputs = [(function.trigger["name"], value)]
        inputs += [(name, Datum(self._durable_client, "string")) for name in function.client_parameters]
        invocation_id = str(uuid.uuid4())
        _failure.set(None)
        ok, result, _, message, _ = await invocation_request_native(
            invocation_id, function.id, inputs, dict(metadata or {}), trace_parent
        )
        if ok:
            return result
        cause = _failure.get() or RuntimeError(message)
        log.error("Function %s failed (invocation %s)", function.name, invocation_id, exc_info=cause)
        raise FunctionFailedError.because(function.name, cause)


def _index(app_dir: Path) -> list[Function]:
    os.chdir(app_dir)
    sys.path.insert(0, str(app_dir))
    handle_event.protos = SimpleNamespace(
        BindingInfo=_BindingInfo, RpcFunctionMetadata=SimpleNamespace, RpcRetryOptions=SimpleNamespace
    )
    load_binding_registry()
    start_threadpool_executor()
    handle_event.load_function_metadata(str(app_dir), "local host")
    if not handle_event._metadata_result:  # noqa: SLF001 - the library publishes the index nowhere else
        raise SystemExit(f"No functions found: {app_dir / 'function_app.py'} is missing or registers none")
    return [_describe(metadata) for metadata in handle_event._metadata_result]  # noqa: SLF001


def _describe(metadata: Any) -> Function:
    bindings: list[dict[str, Any]] = [json.loads(raw) for raw in metadata.raw_bindings]
    for binding in bindings:
        if binding["direction"] == "OUT" and binding["type"] not in OUTPUTS_SERVED:
            raise SystemExit(f"{metadata.name}: output binding {binding['type']} is not served by the local host")
    return Function(
        name=metadata.name,
        id=metadata.function_id,
        trigger=next(binding for binding in bindings if binding["type"].endswith("Trigger")),
        client_parameters=tuple(binding["name"] for binding in bindings if binding["type"] == "durableClient"),
    )
