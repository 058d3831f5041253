"""Who may ask Jira, and how it refuses: tokens, scopes, limits, and nobody's empty success."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from aiohttp import web

from local.trackers._jira_hooks import JiraHooks
from local.trackers._oauth import RefreshTokens
from local.trackers.service import Handler, Tracker, json_response
from local.trackers.world import World

CLIENT = "3Hq0vTfQmT5c1bTq"
# How Atlassian's gateway knows a site; its API stands under this address there.
CLOUD_ID = "5f1c9a64-2f6e-4c55-9d0c-8c2a7a3f6b10"
GATEWAY = f"/ex/jira/{CLOUD_ID}"
SITES = "/oauth/token/accessible-resources"
HIDDEN = "Issue does not exist or you do not have permission to see it."
# Part of a path → the scope it needs; the first that fits.
_SCOPES = {
    "/sprint": "read:sprint:jira-software",
    "/rest/agile/": "read:board-scope:jira-software",
    "/myself": "read:jira-user",
    "/users/search": "read:jira-user",
    "/rest/api/": "read:jira-work",
}


class JiraAccess(Tracker):
    """Everything about a caller; the records are JiraTracker's."""

    source: ClassVar[str] = "jira"
    kind_of_hooks = JiraHooks

    def __init__(self, world: World, *, cloud: bool, email: str, token: str, latency: float) -> None:
        super().__init__(world, token=token, latency=latency)
        self.cloud = cloud
        self.email = email
        self.empty_for_nobody = False
        # What a token behind the gateway may do; None: everything.
        self.scopes: frozenset[str] | None = None
        self.token_seconds: float = 3_600
        self.tokens: dict[str, datetime] = {}
        # Of apps that people authorize. What was taken works for ten minutes more; reuse after that is held for theft.
        # Unused it ends after 90 days.
        # https://community.developer.atlassian.com/t/the-old-access-token-will-be-revoked-during-the-refresh-token-exchange/83103
        self.refresh_tokens = RefreshTokens(world, seconds=3_600, leeway=timedelta(minutes=10))
        self.refresh_tokens.detects_reuse = True
        self.refresh_tokens.unused = timedelta(days=90)
        # Further sites an app is authorized for: address → number.
        self.other_sites: dict[str, str] = {}
        self.reaches_this_site = True
        self.limit_reason: str | None = "jira-burst-based"
        self.remaining = 350

    def token_routes(self) -> Mapping[str, Handler]:
        """Where a service account's client gets its tokens: Atlassian's log-in server, or the site itself."""
        return {"/oauth/token" if self.cloud else "/rest/oauth2/latest/token": self._give_token}

    async def _give_token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, self.token):
            return json_response({"error": "access_denied", "error_description": "Unauthorized"}, status=401)
        if self.cloud and form.get("grant_type") == "refresh_token":
            return self._take(str(form.get("refresh_token")))
        if form.get("grant_type") != "client_credentials" or (not self.cloud and form.get("scope") != "READ"):
            return json_response({"error": "invalid_request", "error_description": "Bad Request"}, status=400)
        token = f"made-{self.world.next_id()}"
        self.tokens[token] = self.world.now + timedelta(seconds=self.token_seconds)
        return json_response({"access_token": token, "expires_in": self.token_seconds, "token_type": "Bearer"})

    def _take(self, refresh_token: str) -> web.Response:
        """https://developer.atlassian.com/cloud/oauth/getting-started/refresh-tokens/"""
        if (got := self.refresh_tokens.take(refresh_token)) is None:
            said = "Unknown or invalid refresh token."
            return json_response({"error": "invalid_grant", "error_description": said}, status=403)
        told = {"access_token": got[0], "refresh_token": got[1], "expires_in": self.refresh_tokens.seconds}
        return json_response({**told, "token_type": "Bearer", "scope": "read:jira-user read:jira-work offline_access"})

    def authorize(self) -> Mapping[str, str]:
        return {"client_id": CLIENT, "client_secret": self.token, "refresh_token": self.refresh_tokens.authorize()}

    async def list_sites(self, request: web.Request) -> web.Response:
        """The sites a token is good for."""
        sites = {**({self.url: CLOUD_ID} if self.reaches_this_site else {}), **self.other_sites}
        scopes = ["read:jira-user", "read:jira-work"]
        return json_response([{"id": sites[url], "name": "site", "url": url, "scopes": scopes} for url in sites])

    def open_to_all(self, request: web.Request) -> bool:
        return request.path.endswith(("/serverInfo", "/oauth/token", "/oauth2/latest/token"))

    def authorized(self, request: web.Request) -> bool:
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        pair = b64encode(f"{self.email}:{self.token}".encode()).decode()
        known = value == self.token or self.tokens.get(value, self.world.now) > self.world.now
        if self.refresh_tokens.allows(value):
            # A site's own address takes no tokens of apps.
            known = request.path.startswith((GATEWAY, SITES))
        return value == pair if kind == "Basic" else kind == "Bearer" and known and self._in_scope(request)

    def _in_scope(self, request: web.Request) -> bool:
        if request.path == SITES:
            return True
        needed = next((scope for part, scope in _SCOPES.items() if part in request.path), "")
        return self.scopes is None or needed in self.scopes

    def unauthorized(self, request: web.Request) -> web.Response:
        """Calls that need nobody in particular answer a wrong token with an empty success."""
        if request.path.startswith((GATEWAY, SITES)):
            said = "Unauthorized" if self._in_scope(request) else "Unauthorized; scope does not match"
            return json_response({"code": 401, "message": said}, status=401)
        headers = {"X-Seraph-LoginReason": "AUTHENTICATED_FAILED"}
        if self.empty_for_nobody and "myself" not in request.path:
            if "/search" in request.path:
                empty = {"issues": [], "isLast": True, "total": 0, "startAt": 0, "maxResults": 50, "values": []}
                return json_response(empty, headers=headers)
            return json_response({"errorMessages": [HIDDEN], "errors": {}}, status=404, headers=headers)
        body = {"message": "Client must be authenticated to access this resource.", "status-code": 401}
        return json_response(body, status=401, headers={**headers, "WWW-Authenticate": 'OAuth realm="jira"'})

    def limited(self, request: web.Request, seconds: float) -> web.Response:
        if self.limit_reason is None:
            headers = {"X-Failure-Category": "FAILURE CLIENT RATE LIMITED", "X-RateLimit-Limit": "360000"}
            return web.Response(status=429, headers={**headers, "X-RateLimit-Remaining": "0"})
        # The real clock: what waits for it lives outside the world.
        reset = datetime.now(UTC) + timedelta(seconds=seconds)
        headers = {
            "Retry-After": f"{seconds:.0f}",
            "X-RateLimit-Limit": "350",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": f"{reset:%Y-%m-%dT%H:%M:%SZ}",
            "RateLimit-Reason": self.limit_reason,
        }
        return web.Response(status=429, headers=headers)

    def quota_headers(self) -> Mapping[str, str]:
        if not self.cloud:
            return {}
        left = self.remaining if self.quota is None else self.quota
        return {"X-RateLimit-Limit": "350", "X-RateLimit-Remaining": f"{left}"}
