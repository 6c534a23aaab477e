"""Whose pods are bought where."""

from typing import Any

import pytest

from comfy_gateway.core.money.profiles import Profile, Profiles, wish_of
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.ports import Candidate

USUAL, H100, A5000, L40S = (Candidate(name, "SECURE") for name in ("RTX 4090", "H100", "A5000", "L40S"))
PROFILES = Profiles(
    (USUAL,),
    (
        Profile("big", (H100,), users=frozenset({"alice"})),
        Profile("film", (L40S,), teams=frozenset({"film"})),
        Profile("small", (A5000,), on_request=True),
    ),
    {"film": frozenset({"alice", "carol"})},
)


def named(name: str) -> UserId:
    return UserId(IdKind.NAMED, name)


@pytest.mark.parametrize(
    ("user", "wish", "gpu"),
    [
        (named("bob"), None, "RTX 4090"),
        (named("alice"), None, "H100"),
        (named("carol"), None, "L40S"),
        (named("alice"), "film", "L40S"),
        (named("alice"), "small", "A5000"),
        (named("bob"), "small", "A5000"),
        (named("bob"), "big", "RTX 4090"),
        (named("bob"), "film", "RTX 4090"),
        (named("carol"), "huge", "L40S"),
        (UserId(IdKind.CLIENT, "alice"), None, "RTX 4090"),
        (UserId(IdKind.CLIENT, "carol"), "film", "RTX 4090"),
        (UserId(IdKind.ADDRESS, "127.0.0.1"), "small", "A5000"),
    ],
    ids=[
        "nobody in particular", "named", "of a team", "own name goes before team, unless asked", "asked for",
        "anybody may ask", "not for them", "not their team", "there is none", "a client_id is no name",
        "nor is it in a team", "an address may ask",
    ],
)  # fmt: skip
def test_a_wish_counts_first_then_the_name_then_the_team(user: UserId, wish: str | None, gpu: str) -> None:
    assert [candidate.gpu_type for candidate in PROFILES.of(user, wish).candidates] == [gpu]


def test_all_gpu_types_are_told_once() -> None:
    assert PROFILES.gpu_types == ("RTX 4090", "H100", "L40S", "A5000")


@pytest.mark.parametrize(
    ("document", "wish"),
    [
        ({"extra_data": {"runpod_profile": "big"}}, "big"),
        ({"extra_data": {"runpod_profile": "x" * 65}}, None),
        ({"extra_data": {"runpod_profile": ""}}, None),
        ({"extra_data": {"runpod_profile": "a\nb"}}, None),
        ({"extra_data": {"runpod_profile": ["big"]}}, None),
        ({"extra_data": {}}, None),
        ({"extra_data": "big"}, None),
        ({"runpod_profile": "big"}, None),
        ({}, None),
    ],
)
def test_a_prompt_asks_for_a_profile_in_its_extra_data(document: dict[str, Any], wish: str | None) -> None:
    assert wish_of(document) == wish
