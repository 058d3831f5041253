"""How lanes share the requests that a connection may have on their way."""

from collections.abc import Collection


def share_of(lane: int, lanes: Collection[int], allowed: int) -> int:
    """The part of one of the lanes in `allowed` requests. No lane is without one, so there must not be more lanes."""
    position = sorted(lanes).index(lane)
    return max(1, allowed // len(lanes) + (position < allowed % len(lanes)))
