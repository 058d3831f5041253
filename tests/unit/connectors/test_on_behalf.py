"""Requests take their turns within the share of the lane they are made for."""

import asyncio

from shared.connectors._on_behalf import Share, own_turn, sharing


class Busy:
    """Counts what goes on at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def call(self) -> None:
        async with own_turn():
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0)
            self.now -= 1


async def run(share: Share | None, calls: int) -> int:
    busy = Busy()
    if share is None:
        await asyncio.gather(*(busy.call() for _ in range(calls)))
    else:
        with sharing(share):
            await asyncio.gather(*(busy.call() for _ in range(calls)))
    return busy.most


async def test_a_share_bounds_what_its_lane_asks_at_once() -> None:
    assert await run(Share(2), calls=9) == 2
    assert await run(None, calls=9) == 9


async def test_a_share_grows_and_never_shrinks() -> None:
    share = Share(1)
    share.grow_to(3)
    share.grow_to(2)

    assert share.size == 3
    assert await run(share, calls=9) == 3


async def test_two_lanes_do_not_take_each_others_turns() -> None:
    first, second = await asyncio.gather(run(Share(1), calls=4), run(Share(2), calls=4))

    assert (first, second) == (1, 2)


async def test_what_a_request_has_to_ask_first_belongs_to_its_turn() -> None:
    async with asyncio.timeout(5):
        with sharing(Share(1)):
            async with own_turn(), own_turn():
                pass
            async with own_turn():
                pass
