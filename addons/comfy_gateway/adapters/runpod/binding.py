"""The process's one ``runpod`` SDK: imported in a thread, and told key and address once.

The SDK keeps its key in a module global, reads its address from the environment at each call and hands its
requests to a library that obeys ``~/.netrc`` and proxy variables. So there is one account for a process, and
this module is the home of the four variables that decide where the key goes.
"""

import ipaddress
import os
import threading
from typing import Any
from urllib.parse import urlsplit

from comfy_gateway.adapters.runpod_import import import_sdk


class SdkBinding:
    """Imports and configures the SDK at the first use. The last binding that was used first wins."""

    def __init__(self, *, api_key: str, api_base: str) -> None:
        self._api_key = api_key
        self._api_base = api_base
        self._lock = threading.Lock()
        self._sdk: Any = None

    def sdk(self) -> Any:
        """The module ``runpod``. Blocks for the time of its import, near 0.3 s, at the first call.

        Raises ImportError where it is not installed.
        """
        with self._lock:
            if self._sdk is None:
                self._set_environment()
                sdk = import_sdk()
                sdk.api_key = self._api_key
                self._sdk = sdk
            return self._sdk

    def _set_environment(self) -> None:
        environment = os.environ  # noqa: TID251 - the SDK can be told these things in no other way
        environment["RUNPOD_API_BASE_URL"] = self._api_base
        # An entry in ~/.netrc for the host would replace our Authorization header.
        environment["NETRC"] = os.devnull
        host = urlsplit(self._api_base).hostname or ""
        if is_loopback(host):
            # A machine whose HTTP_PROXY names this gateway would send the call round in a circle.
            for name in ("no_proxy", "NO_PROXY"):
                entries = [entry for entry in environment.get(name, "").split(",") if entry.strip()]
                if host not in entries:
                    environment[name] = ",".join([*entries, host])


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
