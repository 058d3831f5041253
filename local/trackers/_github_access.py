"""Who may ask GitHub, and how it refuses: tokens, Apps, limits, single sign-on, and everything else that says 403."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

import jwt
from aiohttp import web

from local.trackers._github_json import NO_USER_AGENT, Renderer, instant, problem
from local.trackers._github_paging import conditional, refused
from local.trackers.service import Handler, Tracker, json_response
from local.trackers.world import World

OWNER = "tidewater"
_LIMIT = 5_000


@dataclass(frozen=True)
class App:
    """A GitHub App and its installation."""

    id: str
    installation_id: int
    public_key: str


class GitHubAccess(Tracker):
    """Everything about a caller; the records are GitHubTracker's."""

    source: ClassVar[str] = "github"

    def __init__(self, world: World, *, token: str, latency: float) -> None:
        super().__init__(world, token=token, latency=latency)
        # Part of a path → how it is refused, a key of REFUSALS.
        self.refuse: dict[str, str] = {}
        # How a spent limit is told: primary, or a key of REFUSALS.
        self.limit_style = "primary"
        self.ghosts = frozenset({"wim"})
        self.scopes: str | None = None
        self.token_expires: datetime | None = None
        self.partial_sso = ""
        self.enterprise: str | None = None
        self.app: App | None = None
        self.token_seconds = 3_600
        # Whether JWTs are judged by the world's clock, which is far from that of the caller.
        self.judges_clock = False
        self.minted: dict[str, datetime] = {}
        self._used = 0
        self._spent = False
        self._reset = world.now + timedelta(hours=1)

    def account_routes(self) -> Mapping[str, Handler]:
        """Addresses that are about the caller."""
        return {
            "/rate_limit": self._rate_limit,
            "/meta": self._meta,
            "/user": self._user,
            "/app/installations/{installation}": self._installation,
        }

    def authorized(self, request: web.Request) -> bool:
        if not request.headers.get("User-Agent"):
            return False
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").removeprefix("token ")
        if "/app/" in request.path:
            return self._is_app(token)
        return token == self.token or self.minted.get(token, self.world.now) > self.world.now

    def _is_app(self, token: str) -> bool:
        if self.app is None:
            return False
        lax = {"verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(token, self.app.public_key, algorithms=["RS256"], issuer=self.app.id, options=lax)
        except jwt.PyJWTError:
            return False
        now = self.world.now.timestamp() if self.judges_clock else time.time()
        return claims["iat"] <= now < claims["exp"] <= now + 600

    def unauthorized(self, request: web.Request) -> web.Response:
        if not request.headers.get("User-Agent"):
            return json_response(problem(NO_USER_AGENT, 403), status=403)
        said = "A JSON web token could not be decoded" if "/app/" in request.path else "Bad credentials"
        return json_response(problem(said, 401), status=401)

    def limited(self, request: web.Request, seconds: float) -> web.Response:
        if self.limit_style != "primary":
            return refused(self.limit_style)
        self._spent = True
        self._reset = self.world.now + timedelta(seconds=seconds)
        return json_response(problem("API rate limit exceeded for user ID 77.", 403), status=403)

    def quota_headers(self) -> Mapping[str, str]:
        if self.enterprise:
            return {"X-GitHub-Enterprise-Version": self.enterprise}
        self._used += 1
        left = _LIMIT - self._used % _LIMIT if self.quota is None else max(self.quota, 0)
        spent, self._spent = self._spent, False
        return {
            "x-ratelimit-limit": str(_LIMIT),
            "x-ratelimit-remaining": "0" if spent else str(left),
            "x-ratelimit-reset": str(int(self._reset.timestamp())),
            "x-ratelimit-resource": "core",
        }

    def guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            for part, kind in self.refuse.items():
                if part in request.path:
                    return refused(kind)
            response = conditional(request, await handler(request))
            if self.quota is not None and (response.status == 304 or request.path.endswith("/rate_limit")):
                self.quota += 1
            return response

        return guarded

    def moved(self, request: web.Request, path: str) -> web.Response:
        url = self.root(request) + path
        body = {"message": "Moved Permanently", "url": url, "documentation_url": "https://docs.github.com/rest"}
        return json_response(body, status=301, headers={"Location": url})

    def root(self, request: web.Request) -> str:
        return f"{self.url}/api/v3" if request.path.startswith("/api/v3/") else self.url

    def shown(self, request: web.Request) -> Renderer:
        return Renderer(self.root(request), self.ghosts)

    async def _rate_limit(self, request: web.Request) -> web.Response:
        if self.enterprise:
            return json_response(problem("Rate limiting is not enabled.", 404), status=404)
        return json_response({"rate": {"limit": _LIMIT, "reset": int(self._reset.timestamp())}})

    async def _meta(self, request: web.Request) -> web.Response:
        return json_response({"verifiable_password_authentication": False, "installed_version": self.enterprise})

    async def _user(self, request: web.Request) -> web.Response:
        if not self.is_person(request):
            return refused("app")
        headers = {"X-OAuth-Scopes": self.scopes} if self.scopes is not None else {}
        if self.token_expires:
            expires = self.token_expires.strftime("%Y-%m-%d %H:%M:%S UTC")
            headers["GitHub-Authentication-Token-Expiration"] = expires
        return json_response(self.shown(request).user(self.world.users[0]), headers=headers)

    def is_person(self, request: web.Request) -> bool:
        return request.headers["Authorization"].endswith(self.token)

    async def _installation(self, request: web.Request) -> web.Response:
        if not self._names_installation(request):
            return refused("hidden")
        account = {"login": OWNER, "id": 77, "type": "Organization"}
        return json_response({"id": request.match_info["installation"], "account": account, "app_slug": "intake"})

    async def mint(self, request: web.Request) -> web.Response:
        if not self._names_installation(request):
            return refused("hidden")
        token = f"ghs_{len(self.minted)}"
        self.minted[token] = self.world.now + timedelta(seconds=self.token_seconds)
        rights = {"contents": "read", "issues": "read", "metadata": "read", "pull_requests": "read"}
        body = {"token": token, "expires_at": instant(self.minted[token]), "permissions": rights}
        return json_response(body, status=201)

    def _names_installation(self, request: web.Request) -> bool:
        return self.app is not None and request.match_info["installation"] == str(self.app.installation_id)
