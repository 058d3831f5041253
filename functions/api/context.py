"""What a request brings along from its trigger: the runtime, and a way to start orchestrations."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from functions.runtime import Runtime
from shared.services.dispatch_jobs import Starter, dispatch


@dataclass(frozen=True)
class Context:
    """Put into the ASGI scope's state by the trigger, under `context`."""

    runtime: Runtime
    start: Starter | None

    async def dispatch(self) -> None:
        """Start what may run now."""
        if self.start is not None:
            settings = self.runtime.settings
            await dispatch(self.runtime.database, self.start, concurrency=settings.job_concurrency)


def context_of(request: Request) -> Context:
    """The context of a request."""
    context: Context = request.state.context
    return context


InContext = Annotated[Context, Depends(context_of)]
