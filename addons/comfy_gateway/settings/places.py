"""Settings that have a form of their own: where to buy, for whom. Lists and objects in YAML, JSON in one variable.

Every function raises ValueError that says what is allowed.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from comfy_gateway.core.money.profiles import MAX_NAME_LENGTH, Profile
from comfy_gateway.core.ports import Candidate
from comfy_gateway.settings import parse

MAX_USD_PER_HOUR: Final = 1_000.0
_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_NAME_LENGTH - 1}}}")
_CANDIDATE_KEYS: Final = ("gpu", "cloud", "region", "max_usd")
_PROFILE_KEYS: Final = ("candidates", "users", "teams", "on_request")
CANDIDATES_ALLOWED: Final = (
    'a list such as [{"gpu": "NVIDIA L40S", "cloud": "SECURE", "region": ["EU-RO-1"], "max_usd": 0.9}],'
    " of which gpu alone is needed"
)
PROFILES_ALLOWED: Final = (
    'an object such as {"big": {"candidates": [{"gpu": "NVIDIA H100 PCIe"}], "users": ["alice"], "teams": ["film"],'
    ' "on_request": false}}, of which candidates alone are needed'
)
TEAMS_ALLOWED: Final = 'an object such as {"film": ["alice", "bob"]}'


def candidates(value: Any) -> tuple[Candidate, ...]:
    """Places with price ceilings, in order. ``cloud`` is SECURE unless given; each region is a place."""
    told = _from_json(value, CANDIDATES_ALLOWED)
    if isinstance(told, tuple) and all(isinstance(one, Candidate) for one in told):
        return told
    if not isinstance(told, list):
        raise ValueError(CANDIDATES_ALLOWED)
    return tuple(candidate for one in told for candidate in _candidates_of(one))


def profiles(value: Any) -> tuple[Profile, ...]:
    """Named ways to buy, in order."""
    told = _from_json(value, PROFILES_ALLOWED)
    if isinstance(told, tuple) and all(isinstance(one, Profile) for one in told):
        return told
    if not isinstance(told, Mapping):
        raise ValueError(PROFILES_ALLOWED)
    return tuple(_profile(str(name), one) for name, one in told.items())


def teams(value: Any) -> dict[str, frozenset[str]]:
    """Names of users by team."""
    told = _from_json(value, TEAMS_ALLOWED)
    if not isinstance(told, Mapping) or not all(_NAME.fullmatch(str(name)) for name in told):
        raise ValueError(TEAMS_ALLOWED)
    return {str(name): frozenset(_users(members, f"the users of {name}")) for name, members in told.items()}


def _from_json(value: Any, allowed: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{allowed}; this is no JSON at character {error.pos}") from None


def _candidates_of(told: Any) -> list[Candidate]:
    _check_keys(told, _CANDIDATE_KEYS, "a place")
    gpus = parse.gpu_types(_text(told.get("gpu"), "gpu"))
    if len(gpus) != 1:
        raise ValueError("one GPU type such as NVIDIA L40S for the gpu of each place")
    regions = told.get("region")
    listed: tuple[str | None, ...] = (None,)
    if regions is not None:
        listed = parse.data_centres(regions if isinstance(regions, list) else _text(regions, "region")) or (
            None,
        )
    cloud = parse.cloud_type(_text(told.get("cloud", "SECURE"), "cloud"))
    max_usd = _dollars(told["max_usd"]) if told.get("max_usd") is not None else None
    return [Candidate(gpus[0], cloud, region, max_usd) for region in listed]


def _profile(name: str, told: Any) -> Profile:
    if not _NAME.fullmatch(name):
        raise ValueError(f"names of letters, digits, '_', '.' and '-'; {name!r} is none")
    _check_keys(told, _PROFILE_KEYS, f"profile {name}")
    places = candidates(told.get("candidates", []))
    if not places:
        raise ValueError(f"at least one candidate for profile {name}")
    return Profile(
        name,
        places,
        users=frozenset(_users(told.get("users", []), f"the users of profile {name}")),
        teams=frozenset(parse.words(told.get("teams", []))),
        on_request=parse.flag(told.get("on_request", False)),
    )


def _users(told: Any, whose: str) -> tuple[str, ...]:
    if not isinstance(told, list | str):
        raise ValueError(f"a list of names for {whose}")
    return parse.user_names(told)


def _check_keys(told: Any, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(told, Mapping):
        raise ValueError(f"an object of {', '.join(keys)} for {what}")
    for key in told:
        if key not in keys:
            raise ValueError(f"{', '.join(keys)} for {what}; there is no {key!r}")


def _text(told: Any, key: str) -> str:
    if not isinstance(told, str) or not told.strip():
        raise ValueError(f"a text for {key}")
    return told


def _dollars(told: Any) -> float:
    try:
        found = float(told)
    except (TypeError, ValueError):
        found = 0.0
    if isinstance(told, bool) or not 0 < found <= MAX_USD_PER_HOUR:
        raise ValueError(f"a number above 0, up to {MAX_USD_PER_HOUR:g}, for max_usd")
    return found
