"""Whose pods are bought where: profiles of candidates, by the user's wish, name or team.

The first that fits counts: the profile that a prompt asks for by ``extra_data.runpod_profile``, if its user may have
it; the first that names the user; the first that names a team of theirs; the usual candidates. A wish for a profile
that there is not, or that is for others, is no reason to refuse a prompt: the user's own profile counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.ports import Candidate

WISH: Final = "runpod_profile"
MAX_NAME_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to buy."""

    name: str
    candidates: tuple[Candidate, ...]
    """In the order in which they are asked."""
    users: frozenset[str] = frozenset()
    """Names of users; those who only have a ``client_id`` or an address have no name."""
    teams: frozenset[str] = frozenset()
    on_request: bool = False
    """Whether anybody may ask for it."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """All ways to buy. Without named ones all users buy at the usual candidates."""

    usual: tuple[Candidate, ...]
    named: tuple[Profile, ...] = ()
    teams: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Names of users by team."""

    def of(self, user: UserId, wish: str | None = None) -> Profile:
        """Where this user's next pod is bought; ``wish`` is what their prompt asked for."""
        wished = next((profile for profile in self.named if profile.name == wish), None)
        if wished is not None and self.may_have(user, wished):
            return wished
        for is_theirs in (self._is_named, self._is_of_team):
            for profile in self.named:
                if is_theirs(user, profile):
                    return profile
        return Profile("", self.usual)

    @property
    def gpu_types(self) -> tuple[str, ...]:
        """All that may be bought, each once."""
        all_of_them = (
            *self.usual,
            *(candidate for profile in self.named for candidate in profile.candidates),
        )
        return tuple(dict.fromkeys(candidate.gpu_type for candidate in all_of_them))

    def offered(self, user: UserId) -> list[str]:
        """Names that this user gets for asking."""
        return [profile.name for profile in self.named if self.may_have(user, profile)]

    def may_have(self, user: UserId, profile: Profile) -> bool:
        """Whether a user gets this profile for asking."""
        return profile.on_request or self._is_named(user, profile) or self._is_of_team(user, profile)

    def _is_named(self, user: UserId, profile: Profile) -> bool:
        return user.kind is IdKind.NAMED and user.name in profile.users

    def _is_of_team(self, user: UserId, profile: Profile) -> bool:
        teams = (self.teams.get(team, frozenset()) for team in profile.teams)
        return user.kind is IdKind.NAMED and any(user.name in members for members in teams)


def wish_of(document: Mapping[str, Any]) -> str | None:
    """The profile that the body of a ``POST /prompt`` asks for, or None."""
    extra_data = document.get("extra_data")
    wish = extra_data.get(WISH) if isinstance(extra_data, dict) else None
    return wish if isinstance(wish, str) and 0 < len(wish) <= MAX_NAME_LENGTH and wish.isprintable() else None
