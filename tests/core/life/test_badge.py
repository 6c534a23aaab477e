"""What the badge says in each state."""

import pytest

from comfy_gateway.core.life.badge import Standing, short_gpu, toast, view
from comfy_gateway.core.life.own_pod import Can
from comfy_gateway.core.life.session import State


@pytest.mark.parametrize(
    ("standing", "text", "ends_in_s", "note"),
    [
        (Standing(State.SHARED), "Shared GPU", None, ""),
        (Standing(State.SHARED, ahead=0), "Shared GPU", None, ""),
        (Standing(State.SHARED, ahead=2), "Shared GPU, 2 ahead of you", None, ""),
        (
            Standing(State.SHARED, prompts_in_window=3, threshold=5),
            "Shared GPU",
            None,
            "3 of 5 prompts toward a private GPU",
        ),
        (Standing(State.SHARED, prompts_in_window=1, threshold=None), "Shared GPU", None, ""),
        (Standing(State.BOOTING), "Private GPU starting", None, ""),
        (
            Standing(State.BOOTING, start_ends_in_s=130),
            "Private GPU starting, about {left}",
            130,
            "",
        ),
        (Standing(State.VERIFYING, start_ends_in_s=-9), "Private GPU starting, about {left}", 0, ""),
        (Standing(State.READY), "Private GPU", None, ""),
        (
            Standing(State.READY, gpu="NVIDIA GeForce RTX 4090", idle_ends_in_s=510),
            "Private RTX 4090, idle in {left}",
            510,
            "",
        ),
        (Standing(State.READY, gpu="odd {left}"), "Private odd left", None, ""),
        (Standing(State.CHECKING), "Private GPU is being looked for", None, ""),
        (Standing(State.DRAINING), "Shared GPU, the private one is ending", None, ""),
        (
            Standing(State.COOLING, ahead=1),
            "Shared GPU, 1 ahead of you",
            None,
            "the private one did not start",
        ),
        (Standing(State.ABANDONING), "Shared GPU", None, "the private one did not start"),
    ],
)
def test_each_standing_has_its_words(
    standing: Standing, text: str, ends_in_s: float | None, note: str
) -> None:
    seen = view(standing)
    assert (seen["state"], seen["text"], seen["ends_in_s"], seen["note"]) == (
        str(standing.state),
        text,
        ends_in_s,
        note,
    )


@pytest.mark.parametrize("state", State)
def test_there_are_words_for_every_state_and_a_place_for_the_time_only_where_it_is_told(state: State) -> None:
    seen = view(Standing(state))
    assert seen["text"]
    assert "{" not in seen["text"]


def test_only_the_end_of_an_idle_pod_is_warned_of() -> None:
    assert view(Standing(State.READY, idle_ends_in_s=500))["warn_below_s"] == 120
    assert view(Standing(State.BOOTING, start_ends_in_s=20))["warn_below_s"] is None


def test_only_what_policy_allows_is_offered() -> None:
    assert view(Standing(State.SHARED))["actions"] == []
    offered = view(Standing(State.READY, can=Can(keep=True, give_back=True)))["actions"]
    assert offered == [
        {"label": "Keep 30 minutes", "path": "/gateway/api/v1/me/keep", "body": {"minutes": 30}},
        {"label": "Give back", "path": "/gateway/api/v1/me/give-back", "body": {}},
    ]
    (offer,) = view(Standing(State.SHARED, can=Can(promote=True)))["actions"]
    assert offer["path"] == "/gateway/api/v1/me/promote"


@pytest.mark.parametrize(
    ("before", "after", "summary"),
    [
        (State.SHARED, State.REQUESTED, "A private GPU starts"),
        (State.VERIFYING, State.READY, "Private GPU ready"),
        (State.READY, State.DRAINING, "Private GPU ends"),
        (State.READY, State.TERMINATING, "Private GPU lost"),
        (State.DRAINING, State.TERMINATING, None),
        (State.BOOTING, State.ABANDONING, "No private GPU"),
        (State.ABANDONING, State.COOLING, None),
        (State.CREATING, State.COOLING, "No private GPU"),
        (State.CREATING, State.BOOTING, None),
        (State.READY, State.READY, None),
    ],
)
def test_a_person_hears_of_each_turn_once(before: State, after: State, summary: str | None) -> None:
    told = toast(before, after)
    assert (told and told["summary"]) == summary


def test_a_gpu_is_named_as_people_say_it() -> None:
    assert short_gpu("NVIDIA A100 80GB PCIe") == "A100 80GB PCIe"
    assert short_gpu("AMD Instinct MI300X OAM") == "Instinct MI300X OAM"
