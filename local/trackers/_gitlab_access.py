"""Who may ask GitLab, and how it refuses: tokens of both kinds, scopes, refused accounts and addresses, limits."""

from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, ClassVar

from aiohttp import web

from local.trackers._gitlab_json import user
from local.trackers.service import Tracker, json_response
from local.trackers.world import World

_LIMIT = 2_000

Json = dict[str, Any]
Handler = Callable[[web.Request], web.Response]


class GitLabAccess(Tracker):
    """Everything about a caller; the records are GitLabTracker's."""

    source: ClassVar[str] = "gitlab"

    def __init__(self, world: World, *, token: str, latency: float) -> None:
        super().__init__(world, token=token, latency=latency)
        # Servers before 18.3 take no notice of `pagination=keyset` for project issues.
        self.keyset = True
        self.scopes = ["read_api"]
        # Whether the token is one of OAuth, which has a page of its own, and two hours to live.
        self.oauth = False
        # Why the account as a whole is refused.
        self.account_refused = ""
        self.blocked = False
        self.revoked = False
        # Self-managed servers may tell the limit only where it is reached.
        self.tells_quota = True
        self._refusing = 0.0
        self._left = _LIMIT

    def authorized(self, request: web.Request) -> bool:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.token == bearer or (self.token == request.headers.get("PRIVATE-TOKEN") and not self.oauth)

    def unauthorized(self, request: web.Request) -> web.Response:
        return json_response({"message": "401 Unauthorized"}, status=401)

    def token_expired(self, request: web.Request) -> web.Response:
        said = "Token is expired. You can either do re-authorization or token refresh."
        if self.revoked:
            said = "Token was revoked. You have to re-authorize from the user."
        return json_response({"error": "invalid_token", "error_description": said}, status=401)

    def limited(self, request: web.Request, seconds: float) -> web.Response:
        self._refusing = max(seconds, 1.0)
        return web.Response(text="Retry later\n", status=429, headers={"Retry-After": f"{seconds:.0f}"})

    def maintenance(self, request: web.Request) -> web.Response:
        page = "<!DOCTYPE html><html><head><title>GitLab is not responding (502)</title></head><body>502</body></html>"
        return web.Response(text=page, status=502, content_type="text/html")

    def quota_headers(self) -> dict[str, str]:
        refusing, self._refusing = self._refusing, 0.0
        if not (self.tells_quota or refusing):
            return {}
        self._left = max(self._left - 1, 0)
        reset = self.world.now + timedelta(seconds=refusing or 60)
        return {
            "RateLimit-Name": "throttle_authenticated_api",
            "RateLimit-Limit": str(_LIMIT),
            "RateLimit-Observed": str(_LIMIT + 1 if refusing else _LIMIT - self._left),
            "RateLimit-Remaining": "0" if refusing else str(self._left),
            "RateLimit-Reset": str(int(reset.timestamp())),
            "RateLimit-ResetTime": format_datetime(reset, usegmt=True),
        }

    def account_routes(self, base: str) -> list[tuple[str, Handler]]:
        """Addresses that are about the caller and the server."""
        return [
            ("/oauth/token/info", self._oauth_info),
            (f"{base}/version", self._version),
            (f"{base}/user", self._user),
            (f"{base}/personal_access_tokens/self", self._own_token),
        ]

    def guarded(self, handler: Callable[[web.Request], web.Response]) -> Callable[[web.Request], Any]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if self.blocked:
                return web.Response(text="Forbidden\n", status=403)
            if self.account_refused:
                return json_response({"message": f"403 Forbidden - {self.account_refused}"}, status=403)
            if not {"read_api", "api"} & set(self.scopes) and "token" not in request.path:
                said = "The request requires higher privileges than provided by the access token."
                body = {"error": "insufficient_scope", "error_description": said, "scope": "api read_api"}
                return json_response(body, status=403)
            return handler(request)

        return guarded

    def _version(self, request: web.Request) -> web.Response:
        return json_response({"version": "18.5.1-ee" if self.keyset else "17.11.4", "revision": "5bd2c1f0"})

    def _user(self, request: web.Request) -> web.Response:
        return json_response(user(self.world.users[0], self.url))

    def _own_token(self, request: web.Request) -> web.Response:
        if self.oauth:
            said = "400 Bad request - This endpoint requires token type to be a personal access token"
            return json_response({"message": said}, status=400)
        return json_response(
            {"id": 3, "name": "tributary", "scopes": self.scopes, "active": True, "expires_at": "2027-01-31"}
        )

    def _oauth_info(self, request: web.Request) -> web.Response:
        if not self.oauth:
            return self.unauthorized(request)
        return json_response({"resource_owner_id": 1, "scope": self.scopes, "expires_in": 7_200, "created_at": 1})
