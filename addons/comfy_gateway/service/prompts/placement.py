"""Which server a prompt goes to: the user's own pod, unless it lacks something that duty has.

A pod is made from an image, and duty has grown over months: custom nodes and models differ. A prompt that its pod
would refuse stays where it runs, and a burst of such prompts does not buy a pod on which none of them runs.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from comfy_gateway.core.errors import BackendUnavailable
from comfy_gateway.core.life.session import Event, Session, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock
from comfy_gateway.core.prompts.catalogue import Catalogue, Missing
from comfy_gateway.core.requests.upstream import Backend
from comfy_gateway.service.prompts.catalogues import Catalogues
from comfy_gateway.service.requests.routes import Routes

logger = logging.getLogger(__name__)

REMEMBERED_S: Final = 6 * 3600.0
"""How long the last pod counts: an image in a registry changes without a word to us."""
MOST_SHOWN: Final = 5
MOST_TOLD: Final = 10_000


@dataclass(frozen=True, slots=True)
class LastPod:
    """What pods of this gateway's settings could run when one was last seen. All are ordered alike."""

    catalogue: Catalogue
    at_s: float
    """Monotonic."""


class Placement:
    """Decides by what is known of the servers. While one of the two is unknown nothing is held back."""

    def __init__(self, *, routes: Routes, catalogues: Catalogues, clock: Clock) -> None:
        self._routes = routes
        self._catalogues = catalogues
        self._clock = clock
        self._began_at = clock.now()
        self._last_pod: LastPod | None = None
        self._told: OrderedDict[str, None] = OrderedDict()
        """Prompts and users of whom the log has a line."""

    def backend_for(self, user: UserId | None, document: Mapping[str, Any]) -> Backend:
        """Where this body of ``POST /prompt`` is to be sent. Says so in the log where it stays on duty.

        A prompt that neither side can run goes to the user's pod, which says why.
        """
        pod = self._routes.private(user)
        duty = self._routes.duty(user)
        if pod is None or user is None:
            return duty
        lacking = self._only_on_duty(self._catalogues.of(pod), duty, document)
        if not lacking:
            return pod
        # It may have been installed since: the next prompt shall find it.
        self._catalogues.refresh(pod)
        prompt_id = document.get("prompt_id")
        if not isinstance(prompt_id, str) or self._is_news(f"prompt {prompt_id}"):
            logger.info(
                "RunPod session %s: a prompt stays on duty, for pod %s lacks %s",
                user.key,
                pod.id,
                _words(lacking),
            )
        return duty

    def richer(self, user: UserId | None) -> Backend | None:
        """The duty server that can run what the user's pod cannot; None where the pod lacks nothing of it.

        Takes milliseconds, so it is nothing for every request.
        """
        pod, duty = self._routes.private(user), self._routes.duty(user)
        theirs = None if pod is None else self._catalogues.of(pod)
        ours = self._catalogues.of(duty)
        return duty if theirs is not None and ours is not None and theirs.differences(ours) else None

    def refused(self, user: UserId | None, backend: Backend) -> None:
        """That server has refused a prompt: read it again, and the server that it was preferred to."""
        for each in {backend.id: backend, (duty := self._routes.duty(user)).id: duty}.values():
            self._catalogues.refresh(each)

    def earns_pod(self, user: UserId, document: Mapping[str, Any]) -> bool:
        """Whether a prompt that duty has accepted counts toward a pod: not when the last pod could not have run it."""
        last = self._last_pod
        if self._routes.private(user) is not None:
            return True  # there is one, and nothing is counted
        if last is None or self._clock.monotonic() - last.at_s > REMEMBERED_S:
            return True
        missing = last.catalogue.missing(document)
        # Duty has accepted it, so it has every node, also one that it did not have when it was last read.
        nodes = [one for one in missing if one.kind == "node"]
        lacking = nodes or self._only_on_duty(last.catalogue, self._routes.duty(user), document)
        if not lacking:
            self._told.pop(f"user {user.key}", None)
            return True
        if self._is_news(f"user {user.key}"):
            logger.info(
                "RunPod session %s: prompts of this kind earn no pod, for the last one lacked %s",
                user.key,
                _words(lacking),
            )
        return False

    def only_on_pods(self, user: UserId, document: Mapping[str, Any]) -> str:
        """What duty lacks for a prompt that it has refused and that the last pod could have run, in words for the log.

        Empty where a pod would not help, or what pods have is not known.
        """
        last, ours = self._last_pod, self._catalogues.of(self._routes.duty(user))
        if last is None or ours is None or self._clock.monotonic() - last.at_s > REMEMBERED_S:
            return ""
        on_duty = ours.missing(document)
        return _words(on_duty) if on_duty and not last.catalogue.missing(document) else ""

    async def meet(self, user: UserId, pod: Backend) -> None:
        """Read what a pod can run before it is used, and log what duty has and it lacks.

        Takes as long as the pod needs to answer, within the reader's time. Where it does not, the pod is used all the
        same and nothing is held back from it until it does.
        """
        duty = self._routes.duty(user)
        try:
            theirs = await self._catalogues.fetch(pod)
            ours = self._catalogues.of(duty) or await self._catalogues.fetch(duty)
        except BackendUnavailable as error:
            logger.warning("RunPod session %s: pod %s is not compared with duty: %s", user.key, pod.id, error)
            return
        differences = theirs.differences(ours)
        if differences:
            nodes = sum(one.kind == "node" for one in differences)
            logger.warning(
                "RunPod session %s: pod %s lacks %d of duty's node classes and %d of its models; "
                "prompts that need them stay there: %s",
                user.key,
                pod.id,
                nodes,
                len(differences) - nodes,
                _words(differences),
            )

    def session_moved(self, before: Session, after: Session, _event: Event) -> None:
        """A watcher of sessions: what a pod can run when its use begins and ends is what the next one could.

        A pod that was ordered before this gateway started may be of another image.
        """
        pod = after.pod or before.pod
        if State.READY not in {before.state, after.state} or pod is None or pod.ordered_at < self._began_at:
            return
        catalogue = self._catalogues.by_id(pod.name)
        if catalogue is not None:
            self._last_pod = LastPod(catalogue, self._clock.monotonic())

    def _only_on_duty(
        self, theirs: Catalogue | None, duty: Backend, document: Mapping[str, Any]
    ) -> Sequence[Missing]:
        """What the pod lacks and duty has, if that is enough for the prompt to run on duty; nothing otherwise."""
        ours = self._catalogues.of(duty)
        if theirs is None or ours is None:
            return ()
        on_pod = theirs.missing(document)
        if not on_pod:
            return ()
        on_duty = ours.missing(document)
        # A value that neither lists may be one that its node judges for itself; a class that duty lacks is an error.
        if any(one.kind == "node" or one not in on_pod for one in on_duty):
            return ()
        return [one for one in on_pod if one not in on_duty]

    def _is_news(self, key: str) -> bool:
        is_news = key not in self._told
        self._told[key] = None
        while len(self._told) > MOST_TOLD:
            self._told.popitem(last=False)
        return is_news


def _words(lacking: Sequence[Missing]) -> str:
    shown = ", ".join(str(one) for one in lacking[:MOST_SHOWN])
    more = len(lacking) - MOST_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
