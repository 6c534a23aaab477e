"""Addresses of models: read, and shown without what may be secret."""

import re

from yarl import URL

from model_sync.errors import Useless

# RFC 3986. Anything else in a manifest is quoted; what is legal already stays as it is, since signed addresses break
# when somebody quotes them anew.
_LEGAL = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
WEB = ("https", "http")
SCHEMES = (*WEB, "s3")


def read(text: str) -> URL:
    """Raises Useless for what is no address of a scheme that we fetch from, and for one that carries a password."""
    try:
        url = URL(text, encoded=bool(_LEGAL.fullmatch(text)))
        host = url.host
    except ValueError as error:
        raise Useless(f"{text!r} is no address") from error
    if url.scheme not in SCHEMES or not host:
        raise Useless(
            f"{shown(url)} is not an address of the kind {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
        )
    if url.user or url.password:
        raise Useless(
            f"the address at {host} carries a user or a password; tokens belong into the environment"
        )
    return url


def shown(url: URL | str) -> str:
    """Without user, query and fragment: signed addresses are passwords."""
    url = URL(url, encoded=True) if isinstance(url, str) else url
    return str(url.with_user(None).with_query(None).with_fragment(None) if url.host else url.with_query(None))
