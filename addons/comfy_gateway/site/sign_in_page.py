"""The sign-in page: one form, no script, nothing from elsewhere; dark and light, on a telephone as well."""

import base64
import hashlib
import html
from string import Template
from typing import Final

from comfy_gateway.core.people.roles import SIGN_IN_PATH, SIGN_OUT_PATH

_STYLE: Final = """
:root{color-scheme:light dark;--line:#8886;--accent:#2563eb;--bad:#b91c1c}
@media(prefers-color-scheme:dark){:root{--accent:#60a5fa;--bad:#fca5a5}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:12vh auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0 0 1rem}
label,input,button{display:block;width:100%;font:inherit}
input{padding:.6rem .7rem;margin:.3rem 0 1rem;border:1px solid var(--line);border-radius:.4rem}
button{padding:.6rem;border:0;border-radius:.4rem;background:var(--accent);color:Canvas;font-weight:600;cursor:pointer}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
[hidden]{display:none}
.bad{color:var(--bad);margin:0 0 1rem}
""".strip()

_PAGE: Final = Template(
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>Sign in · ComfyUI</title><style>{_STYLE}</style></head><body><main>$main</main></body></html>\n"
)
_FORM: Final = Template(
    "<h1>Sign in to ComfyUI</h1>$problem"
    f'<form method="post" action="{SIGN_IN_PATH}"><input type="hidden" name="next" value="$back">'
    # For password managers, which keep a token under a name; nobody reads it here.
    '<input name="user" value="ComfyUI" autocomplete="username" hidden>'
    '<label for="token">Your access token</label>'
    '<input id="token" name="token" type="password" required autofocus maxlength="200" spellcheck="false"'
    ' autocapitalize="none" autocomplete="current-password"><button>Sign in</button></form>'
)
_PROBLEM: Final = Template('<p class="bad" role="alert">$text</p>')
_SIGNED_IN: Final = Template(
    '<h1>Signed in as $name</h1><p><a href="/">Open ComfyUI</a></p>'
    f'<form method="post" action="{SIGN_OUT_PATH}"><button>Sign out</button></form>'
)
_SIGNED_OUT: Final = (
    "<h1>Signed out</h1><p>The gateway has forgotten this browser. The browser itself still knows your password until"
    " all of its windows are closed.</p>"
)

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    # Not no-referrer: browsers would send the form with "Origin: null".
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def form(back: str, problem: str = "") -> str:
    """Asks for a token; then the browser goes ``back``."""
    told = _PROBLEM.substitute(text=html.escape(problem)) if problem else ""
    return _PAGE.substitute(main=_FORM.substitute(back=html.escape(back), problem=told))


def signed_in(name: str) -> str:
    """For somebody who comes again."""
    return _PAGE.substitute(main=_SIGNED_IN.substitute(name=html.escape(name)))


def signed_out() -> str:
    """Where there is no form to go back to."""
    return _PAGE.substitute(main=_SIGNED_OUT)
