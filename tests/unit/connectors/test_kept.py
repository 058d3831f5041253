"""What a connector learns of its source holds for a while, and not as long as its worker lives."""

import asyncio

import pytest

from shared.connectors._kept import Kept


async def test_an_answer_is_asked_for_once_while_it_is_fresh() -> None:
    asked: list[int] = []

    async def ask() -> int:
        await asyncio.sleep(0)
        asked.append(1)
        return len(asked)

    kept = Kept(ask, seconds=60)

    assert await asyncio.gather(*(kept.get() for _ in range(5))) == [1] * 5


async def test_an_old_answer_is_asked_for_again() -> None:
    answers = iter(["UTC", "Asia/Tokyo"])

    async def ask() -> str:
        return next(answers)

    kept = Kept(ask, seconds=0)

    assert [await kept.get(), await kept.get()] == ["UTC", "Asia/Tokyo"]


async def test_a_failure_is_not_kept() -> None:
    answers = iter([OSError("cut"), "UTC"])

    async def ask() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    kept = Kept(ask, seconds=60)
    with pytest.raises(OSError, match="cut"):
        await kept.get()

    assert await kept.get() == "UTC"
