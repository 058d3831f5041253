"""Webhooks that belong to a project and are managed over its API, as at GitHub and GitLab."""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from local.trackers._hooks import Hook, Hooks
from local.trackers.service import json_response


class ProjectHooks(Hooks):
    """Lists, shows and deletes the hooks of the project that a path names."""

    def project_of(self, request: web.Request) -> str | None:
        """The key of the project that the path names, if the account sees it."""
        raise NotImplementedError

    def hidden(self, what: str) -> web.Response:
        """The refusal of a project or hook that is not there."""
        raise NotImplementedError

    def shown(self, hook: Hook) -> Mapping[str, Any]:
        """A hook as the API shows it."""
        raise NotImplementedError

    async def list_hooks(self, request: web.Request) -> web.Response:
        project = self.project_of(request)
        if project is None:
            return self.hidden("Project")
        return json_response([self.shown(each) for each in self.hooks.values() if each.project == project])

    def of_hook(self, handler: Callable[[web.Request, Hook], web.Response]) -> Any:
        """A route's handler that is given the hook its path names."""

        async def found(request: web.Request) -> web.Response:
            project = self.project_of(request)
            hook = self.hooks.get(int(request.match_info["hook"]))
            if project is None or hook is None or hook.project != project:
                return self.hidden("Hook")
            return handler(request, hook)

        return found

    def show(self, request: web.Request, hook: Hook) -> web.Response:
        return json_response(self.shown(hook))

    def delete(self, request: web.Request, hook: Hook) -> web.Response:
        del self.hooks[hook.id]
        return web.Response(status=204)
