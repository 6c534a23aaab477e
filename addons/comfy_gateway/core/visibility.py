"""Who may see and touch which prompt. Every such decision of the gateway stands here.

Today the shared servers are as open as a plain ComfyUI: everybody sees, deletes and interrupts everybody's prompts on
them. What is on a private pod, or in the vault, is its user's alone. A prompt's own id is a key to it for those who
say no name at all: the usual script asks on new connections without one.

``asker`` and ``owner`` are ``UserId.key`` or None for nobody known.
"""

from comfy_gateway.core.upstream import Source


def is_listed(asker: str | None, owner: str | None, source: Source) -> bool:
    """Whether a prompt on a server of that kind stands in the lists that ``asker`` reads."""
    return source is Source.DUTY or is_own(asker, owner)


def opens_by_id(asker: str | None, owner: str | None, source: Source) -> bool:
    """Whether ``asker``, who knows the prompt's id, may read, delete or interrupt it."""
    return asker is None or is_listed(asker, owner, source)


def is_own(asker: str | None, owner: str | None) -> bool:
    """Whether what the gateway keeps of ``owner`` is for ``asker``."""
    return asker == owner
