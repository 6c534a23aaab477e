"""What all channels of a relay use together."""

from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from comfy_gateway.core.inputs.spaces import InputSpaces
from comfy_gateway.core.keys import Keys
from comfy_gateway.core.people.users import UserId
from comfy_gateway.core.ports import Clock, ComfyServer
from comfy_gateway.core.prompts.visibility import Visibility
from comfy_gateway.core.results.queue_merge import OrderOf
from comfy_gateway.service.prompts.ledger import Ledger
from comfy_gateway.service.requests.routes import Routes
from comfy_gateway.service.tasks import Tasks
from comfy_gateway.site.relay.limits import RelayLimits, RelayStats
from comfy_gateway.site.relay.ports import FileNotes, Rescuer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Parts of the gateway, and the relay's own bounds, counters and tasks."""

    routes: Routes
    ledger: Ledger
    files: FileNotes
    rescuer: Rescuer
    server: ComfyServer
    keys: Keys
    clock: Clock
    limits: RelayLimits
    stats: RelayStats
    tasks: Tasks
    http: aiohttp.ClientSession
    visibility: Visibility
    spaces: InputSpaces
    order_of: OrderOf
    nudge: Callable[[UserId], None]
    """Has the user's pod looked at soon."""
