"""How lanes share the requests that are allowed at once."""

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.shares import share_of


@given(st.integers(1, 16), st.data())
def test_shares_add_up_to_what_is_allowed(allowed: int, data: st.DataObject) -> None:
    lanes = data.draw(st.lists(st.integers(0, 15), min_size=1, max_size=allowed, unique=True))

    shares = [share_of(lane, lanes, allowed) for lane in lanes]

    assert sum(shares) == allowed
    assert max(shares) - min(shares) <= 1


def test_no_lane_is_left_without_a_turn() -> None:
    assert share_of(3, range(8), 2) == 1
