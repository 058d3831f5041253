"""Refresh tokens that are taken once, as the log-in servers of Atlassian and GitLab give them out."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from local.trackers.world import World


@dataclass
class Given:
    """A refresh token, and what became of it."""

    family: int
    taken_at: datetime | None = None
    unused_until: datetime | None = None


class RefreshTokens:
    """What somebody's consent to an app is renewed with.

    For `leeway` after a token was taken it may be taken again, and its access token still works. Reuse after that ends
    the whole family where `detects_reuse`.
    """

    def __init__(self, world: World, *, seconds: float, leeway: timedelta = timedelta(0)) -> None:
        self._world = world
        self._given: dict[str, Given] = {}
        self._ended: set[int] = set()
        self._access: dict[str, tuple[str, datetime]] = {}
        # How long an access token lives.
        self.seconds = seconds
        self.leeway = leeway
        self.detects_reuse = False
        # How long a refresh token may lie unused; None: for ever.
        self.unused: timedelta | None = None
        self.taken = 0

    def authorize(self) -> str:
        """Somebody consents: a new family, and its first refresh token."""
        return self._give(self._world.next_id())

    def end(self) -> None:
        """Somebody takes every consent back."""
        self._ended |= {each.family for each in self._given.values()}

    def expire(self) -> None:
        """Let every access token end now."""
        self._access = {token: (companion, self._world.now) for token, (companion, _) in self._access.items()}

    def take(self, token: str) -> tuple[str, str] | None:
        """The access token and refresh token that follow on one; None if it is not taken (any more)."""
        given, now = self._given.get(token), self._world.now
        if given is None or given.family in self._ended or (given.unused_until and now > given.unused_until):
            return None
        if given.taken_at is not None and now - given.taken_at >= self.leeway:
            if self.detects_reuse:
                self._ended.add(given.family)
            return None
        given.taken_at = given.taken_at or now
        self.taken += 1
        access_token = f"made-{self._world.next_id()}"
        successor = self._give(given.family)
        self._access[access_token] = (successor, now + timedelta(seconds=self.seconds))
        return access_token, successor

    def gave(self, access_token: str) -> bool:
        """Whether an access token was good once."""
        return access_token in self._access

    def allows(self, access_token: str) -> bool:
        """Whether an access token is good now."""
        if access_token not in self._access:
            return False
        companion, ends_at = self._access[access_token]
        given, now = self._given[companion], self._world.now
        over = given.taken_at is not None and now - given.taken_at >= self.leeway
        return now < ends_at and not over and given.family not in self._ended

    def _give(self, family: int) -> str:
        token = f"once-{family}-{self._world.next_id()}"
        self._given[token] = Given(family, unused_until=self._world.now + self.unused if self.unused else None)
        return token
