"""``AUTH_MODE=proxy``: a trusted proxy in front has signed people in, and names them in a header."""

from collections.abc import Collection

from comfy_gateway.core.people.callers import Caller
from comfy_gateway.core.people.roles import Role, Standing
from comfy_gateway.core.people.sign_in import Recognised, not_signed_in
from comfy_gateway.core.people.users import IdKind, UserId, is_valid_name
from comfy_gateway.core.requests.refusals import Refusal


class ProxySignIn:
    """Implements ``SignIn``. The header of anybody else never gets here (``core.people.callers``)."""

    def __init__(self, *, header: str, allowed_names: str, operators: Collection[str] = ()) -> None:
        """``allowed_names`` says in words what a name may be."""
        self._operators = frozenset(operators)
        self._past_the_proxy = Recognised(
            refusal=not_signed_in(None, "Only the sign-in proxy in front of the gateway is answered.")
        )
        self._unnamed = Recognised(
            refusal=not_signed_in(None, f"The sign-in proxy has named nobody in the header {header}.")
        )
        self._unusable = Recognised(
            refusal=Refusal(
                400,
                "bad_user_id",
                "The user id cannot be used.",
                f"The header {header} must have {allowed_names}.",
            )
        )

    async def recognise(self, caller: Caller) -> Recognised:
        """By the header."""
        if not caller.is_by_proxy:
            return self._past_the_proxy
        names = {name.strip() for name in caller.named} - {""}
        if not names:
            return self._unnamed
        name = names.pop()
        if names or not is_valid_name(name):
            return self._unusable
        role = Role.OPERATOR if name in self._operators else Role.USER
        return Recognised(Standing(UserId(IdKind.NAMED, name), role, is_proven=True))

    def session_of(self, caller: Caller) -> Recognised:
        """There are none."""
        return Recognised()
