"""Which of several pods of one name is kept."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.pods.doubles import kept
from comfy_gateway.core.ports import CloudPod


def pod(id_: str, minute: int | None = None) -> CloudPod:
    made = None if minute is None else datetime(2026, 11, 24, 4, minute, tzinfo=UTC)
    return CloudPod(id_, "comfy-gw-a-b", True, True, 0.5, "RTX 4090", created_at=made)


def test_the_oldest_is_kept_and_one_of_unknown_age_counts_as_the_youngest() -> None:
    assert kept([pod("b", 3), pod("c", 2), pod("a")]).id == "c"
    assert kept([pod("b"), pod("a")]).id == "a"


@given(
    st.lists(
        st.tuples(st.text(min_size=1), st.none() | st.integers(0, 3)),
        min_size=1,
        unique_by=lambda one: one[0],
    ),
    st.randoms(),
)
def test_it_is_the_same_one_in_whichever_order_they_are_listed(
    made: list[tuple[str, int | None]], random: object
) -> None:
    pods = [pod(*one) for one in made]
    shuffled = list(pods)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert kept(pods) == kept(shuffled)
