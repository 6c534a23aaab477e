"""What the gateway says when it answers no, in the shape of ComfyUI's own errors.

``{"error": {"type", "message", "details", "extra_info"}, "node_errors": {}}`` is what ComfyUI's front end and
scripts already know how to show. No text here holds an internal address, a token or a trace.
"""

import base64
import html
from dataclasses import astuple, dataclass
from string import Template
from typing import Any, Final

import orjson


@dataclass(frozen=True, slots=True)
class Refusal:
    """One answer that is not a ComfyUI server's."""

    status: int
    type: str
    message: str
    details: str = ""
    retry_after_s: int | None = None
    challenge: str | None = None
    """How a script would sign in (``WWW-Authenticate``)."""

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {
            "error": {
                "type": self.type,
                "message": self.message,
                "details": self.details,
                "extra_info": {},
            },
            "node_errors": {},
        }


MAX_PROMPT_BYTES: Final = 100 * 1024 * 1024
"""ComfyUI's own default limit for a request body."""

STARTING: Final = Refusal(503, "gateway_starting", "The gateway is starting.", retry_after_s=2)
BROKEN: Final = Refusal(
    503,
    "gateway_error",
    "The gateway could not handle this request; nothing was sent on.",
    retry_after_s=5,
)
FOREIGN_ORIGIN: Final = Refusal(
    403,
    "foreign_origin",
    "This page may not talk to the gateway.",
    "Its Origin is not one of the gateway's own addresses. GATEWAY_PUBLIC_URL names further ones.",
)
HTTPS_ONLY: Final = Refusal(
    403, "https_only", "The gateway is spoken to by HTTPS only.", "Use the same address with https://."
)
PROMPT_TOO_LARGE: Final = Refusal(
    413, "prompt_too_large", f"A prompt may have at most {MAX_PROMPT_BYTES} bytes."
)
PROMPT_WITHOUT_LENGTH: Final = Refusal(
    411,
    "length_required",
    "A prompt must come with a Content-Length and without a transfer encoding.",
)
UPSTREAM_UNREACHABLE: Final = Refusal(
    502,
    "upstream_unreachable",
    "The ComfyUI server cannot be reached or broke off.",
    retry_after_s=5,
)
UPSTREAM_LATE: Final = Refusal(
    504,
    "upstream_timeout",
    "The ComfyUI server did not answer in time.",
    retry_after_s=5,
)
MALFORMED: Final = Refusal(400, "malformed_request", "The request is malformed.")
OPERATORS_ROUTE: Final = Refusal(
    403,
    "operators_only",
    "This is for operators on the shared server.",
    "It would act on everybody's work there. On a private pod it is yours.",
)
UNKNOWN_PAGE: Final = Refusal(404, "not_found", "The gateway has no such page.")
NOT_FROM_HERE: Final = Refusal(403, "forbidden", "This address is for the gateway itself.")


PROMPT_ID_TAKEN: Final = Refusal(
    409,
    "prompt_id_taken",
    "This prompt_id belongs to a prompt of somebody else.",
    "Leave prompt_id out, or choose a UUID.",
)


PROMPT_ON_ITS_WAY: Final = Refusal(
    503,
    "prompt_on_its_way",
    "A prompt with this prompt_id is on its way, and it is not known yet whether it was accepted.",
    "Ask again, or look into the history.",
    retry_after_s=5,
)


def queue_full(most: int) -> Refusal:
    """A user has as many prompts on the shared servers as one may have."""
    return Refusal(
        429,
        "queue_full",
        f"You have {most} prompts in the queue, which is as many as one may have.",
        "Wait until some have ended, or take some out.",
        retry_after_s=15,
    )


def too_many_sockets(most: int) -> Refusal:
    """A user has as many WebSockets open as one may have."""
    return Refusal(
        429,
        "too_many_sockets",
        f"You have {most} sockets open, which is as many as one may have (GATEWAY_MAX_SOCKETS_PER_USER).",
        "Close some pages, or let scripts close their sockets.",
        retry_after_s=15,
    )


def bad_path(why: str) -> Refusal:
    """A path that two servers on the way could read differently."""
    return Refusal(400, "bad_path", "The path cannot be used.", why)


def bad_prompt(why: str) -> Refusal:
    """A prompt whose body is not what ComfyUI expects; ComfyUI uses the same type for it."""
    return Refusal(400, "invalid_prompt", "The prompt cannot be read.", why)


_PAGE: Final = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>ComfyUI</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:28rem;margin:15vh auto;padding:0 1rem}
input,button{font:inherit;padding:.5rem .7rem}input{width:100%;box-sizing:border-box;margin:.5rem 0}</style>
<h1>$title</h1><p>$text</p>$form</html>
""")


def encode(refusal: Refusal) -> str:
    """A refusal as one header's value."""
    return base64.b64encode(orjson.dumps(astuple(refusal))).decode()


def decode(text: str) -> Refusal:
    """What ``encode`` wrote."""
    return Refusal(*orjson.loads(base64.b64decode(text)))


def headers_of(refusal: Refusal) -> dict[str, str]:
    """Headers of the answer, besides its type."""
    headers = {"Cache-Control": "no-store"}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.challenge is not None:
        headers["WWW-Authenticate"] = refusal.challenge
    return headers


def render(refusal: Refusal, *, wants_html: bool, name_key: str | None = None) -> tuple[bytes, str]:
    """Body and content type. ``name_key`` is the query key of the form that asks for a name."""
    if not wants_html:
        return orjson.dumps(refusal.body()), "application/json"
    form = ""
    if name_key is not None:
        form = (
            f'<form method="get" action="/"><label>Your name<input name="{html.escape(name_key)}" required '
            'maxlength="128" pattern="[!-~]([ -~]*[!-~])?" autofocus autocomplete="username"></label>'
            "<button>Continue</button></form>"
        )
    page = _PAGE.substitute(
        title=html.escape("Who are you?" if form else refusal.message),
        text=html.escape(refusal.message if form else refusal.details),
        form=form,
    )
    return page.encode(), "text/html"
