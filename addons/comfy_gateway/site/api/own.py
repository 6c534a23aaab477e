"""``/gateway/api/v1/me``: everybody's own session.

Whose it is is what the hooks say; no query, path or body names a user here.
"""

from collections.abc import Callable
from typing import Final

from aiohttp import web
from pydantic import BaseModel

from comfy_gateway.core.people.identity import IdentityRules, explain_missing
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.requests.refusals import Refusal
from comfy_gateway.core.requests.upstream import Source
from comfy_gateway.service.life.own_session import OwnSession
from comfy_gateway.site.api.bodies import taken
from comfy_gateway.site.api.models import CanSaid, EtaSaid, Keep, Me, Nothing, Promote
from comfy_gateway.site.api.operation import Operation
from comfy_gateway.site.asker import Asker, BadOrder, told
from comfy_gateway.site.refusals import answer


class OwnPages:
    """Answers every order with the session as it is afterwards."""

    def __init__(self, own: OwnSession, identity: IdentityRules) -> None:
        self._own = own
        self._missing: Final = Refusal(400, "missing_user_id", explain_missing(identity))

    def operations(self) -> list[Operation]:
        """What can be asked and ordered."""
        keep = "Leave an idle pod for 30 minutes."
        return [
            Operation("GET", "/me", "me", "One's own session.", self.me, Me),
            Operation(
                "POST", "/me/promote", "me_promote", "Ask for a private pod now.", self.promote, Me, Promote,
                refusals=(409, 503),
            ),
            Operation("POST", "/me/keep", "me_keep", keep, self.keep, Me, Keep, refusals=(409,)),
            Operation(
                "POST", "/me/give-back", "me_give_back", "End one's pod.", self.give_back, Me, Nothing,
                refusals=(409,),
            ),
        ]  # fmt: skip

    def routes(self) -> list[web.RouteDef]:
        """Its paths."""
        return [operation.route() for operation in self.operations()]

    async def me(self, request: web.Request) -> web.StreamResponse:
        """One's own session."""
        user = Asker.of(request).user
        return answer(self._missing) if user is None else told(self._said(user))

    async def promote(self, request: web.Request) -> web.StreamResponse:
        """Ask for a private pod now."""
        return await self._order(request, Promote, lambda user, order: self._own.promote(user, order.profile))

    async def keep(self, request: web.Request) -> web.StreamResponse:
        """Leave an idle pod for 30 minutes."""
        return await self._order(request, Keep, lambda user, _order: self._own.keep(user))

    async def give_back(self, request: web.Request) -> web.StreamResponse:
        """End one's pod."""
        return await self._order(request, Nothing, lambda user, _order: self._own.give_back(user))

    async def _order[Order: BaseModel](
        self, request: web.Request, model: type[Order], act: Callable[[UserId, Order], Refusal | None]
    ) -> web.StreamResponse:
        user = Asker.of(request).user
        if user is None:
            return answer(self._missing)
        try:
            order = await taken(request, model)
        except BadOrder as error:
            return answer(error.refusal)
        refusal = act(user, order)
        return told(self._said(user)) if refusal is None else answer(refusal)

    def _said(self, user: UserId) -> dict[str, object]:
        own = self._own.of(user)
        return Me(
            user=user.name,
            state=own.state,
            source="private" if own.source is Source.PRIVATE else "duty",
            gpu=own.gpu,
            prompts_in_window=own.prompts_in_window,
            threshold=own.threshold,
            ahead=own.ahead,
            eta_s=None if own.eta is None else EtaSaid(p50=own.eta.p50, p90=own.eta.p90),
            idle_ends_in_s=own.idle_ends_in_s,
            can=CanSaid(promote=own.can.promote, keep=own.can.keep, give_back=own.can.give_back),
            profiles=list(own.profiles),
        ).model_dump(mode="json")
