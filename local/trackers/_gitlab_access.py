"""Who may ask GitLab, and how it refuses: tokens of both kinds, scopes, refused accounts and addresses, limits."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, ClassVar

from aiohttp import web

from local.trackers._gitlab_json import user
from local.trackers._oauth import RefreshTokens
from local.trackers.service import Tracker, json_response
from local.trackers.world import World

_LIMIT = 2_000
# An application, as its owner registered it.
APPLICATION = {"client_id": "5d3f0a2e9c41", "client_secret": "gloas-9b1e7c5d"}
_NO_GRANT = (
    "The provided authorization grant is invalid, expired, revoked, does not match the redirection URI used in the "
    "authorization request, or was issued to another client."
)
_NO_CLIENT = (
    "Client authentication failed due to unknown client, no client authentication included, or unsupported "
    "authentication method."
)

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
        # A refresh ends both tokens it replaces at once, those of other workers too.
        # https://docs.gitlab.com/api/oauth2/#authorization-code-flow
        self.refresh_tokens = RefreshTokens(world, seconds=7_200)
        # Why the account as a whole is refused.
        self.account_refused = ""
        self.blocked = False
        self.revoked = False
        # Self-managed servers may tell the limit only where it is reached.
        self.tells_quota = True
        self._refusing = 0.0
        self._left = _LIMIT

    def authorized(self, request: web.Request) -> bool:
        bearer = _bearer(request)
        known = self.token == bearer or self.refresh_tokens.allows(bearer)
        return known or (self.token == request.headers.get("PRIVATE-TOKEN") and not self.oauth)

    def open_to_all(self, request: web.Request) -> bool:
        return request.path == "/oauth/token"

    def authorize(self) -> Mapping[str, str]:
        return {**APPLICATION, "refresh_token": self.refresh_tokens.authorize()}

    async def give_token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if any(form.get(name) != value for name, value in APPLICATION.items()):
            return json_response({"error": "invalid_client", "error_description": _NO_CLIENT}, status=401)
        got = self.refresh_tokens.take(str(form.get("refresh_token")))
        if form.get("grant_type") != "refresh_token" or got is None:
            return json_response({"error": "invalid_grant", "error_description": _NO_GRANT}, status=400)
        told = {"access_token": got[0], "refresh_token": got[1], "expires_in": self.refresh_tokens.seconds}
        return json_response({**told, "token_type": "Bearer", "created_at": int(self.world.now.timestamp())})

    def unauthorized(self, request: web.Request) -> web.Response:
        if self.refresh_tokens.gave(_bearer(request)):
            return self.token_expired(request)
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

    def _is_oauth(self, request: web.Request) -> bool:
        return self.oauth or self.refresh_tokens.gave(_bearer(request))

    def _own_token(self, request: web.Request) -> web.Response:
        if self._is_oauth(request):
            said = "400 Bad request - This endpoint requires token type to be a personal access token"
            return json_response({"message": said}, status=400)
        return json_response(
            {"id": 3, "name": "tributary", "scopes": self.scopes, "active": True, "expires_at": "2027-01-31"}
        )

    def _oauth_info(self, request: web.Request) -> web.Response:
        if not self._is_oauth(request):
            return json_response({"message": "401 Unauthorized"}, status=401)
        return json_response({"resource_owner_id": 1, "scope": self.scopes, "expires_in": 7_200, "created_at": 1})


def _bearer(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")
