"""The host put together: engine, worker, and one listener per trigger."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from local.host.background import Background
from local.host.blob import BlobListener
from local.host.config import HostConfig
from local.host.durable import DurableListener, LocalEngine, client_binding
from local.host.http import Fire, HttpListener
from local.host.queue import QueueListener
from local.host.timer import TimerListener
from local.host.worker import Function
from local.host.workers import Workers, start_workers

log = logging.getLogger(__name__)

Run = Callable[[], Coroutine[Any, Any, None]]


class Host:
    """Serves one function app; `listeners` are tasks that end only when something broke."""

    def __init__(self, config: HostConfig, background: Background) -> None:
        self._config = config
        self._background = background
        self._engine = LocalEngine()
        self._site: web.AppRunner | None = None
        self._workers: Workers | None = None
        self.listeners: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        config = self._config
        self._engine.start()
        workers = self._workers = await start_workers(config, client_binding(self._engine, config))
        self.listeners += workers.ended
        triggered = [self._listener(workers, function) for function in workers.functions]
        pollers = [listener for listener in triggered if listener is not None]
        fire: dict[str, Fire] = {name: by_hand for name, by_hand, _ in pollers}
        self._site = web.AppRunner(
            HttpListener(workers, config, fire, self._background).application(), access_log=None, handle_signals=False
        )
        await self._site.setup()
        await web.TCPSite(self._site, "127.0.0.1", config.port).start()
        self._listen(DurableListener(workers, self._engine, config, self._background).run)
        for name, _, run in pollers:
            if not config.is_disabled(name):
                self._listen(run)
        log.info("Serving %d functions at %s", len(workers.functions), config.base_url)

    async def stop(self, grace_seconds: float) -> None:
        """Take nothing new, give what runs a moment, then end."""
        if self._site:
            await self._site.cleanup()
        for task in self.listeners:
            task.cancel()
        await self._background.drain(grace_seconds)
        if self._workers:
            await self._workers.stop()
        await asyncio.get_running_loop().run_in_executor(None, self._engine.stop)

    def _listener(self, workers: Workers, function: Function) -> tuple[str, Fire, Run] | None:
        match function.kind:
            case "timerTrigger":
                listener = TimerListener(workers, function, self._config)
            case "queueTrigger":
                listener = QueueListener(workers, function, self._config)
            case "blobTrigger":
                listener = BlobListener(workers, function, self._config, self._background)
            case "httpTrigger" | "orchestrationTrigger" | "activityTrigger":
                return None
            case kind:
                raise SystemExit(f"{function.name}: {kind} is not served by the local host")
        return function.name, listener.fire, listener.run

    def _listen(self, run: Run) -> None:
        self.listeners.append(asyncio.create_task(run()))
