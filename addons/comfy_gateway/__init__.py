"""A mitmproxy addon that fronts shared ComfyUI servers and moves bursting users to private GPU pods.

The layers, from the top: ``wiring`` | ``hooks``, ``site`` | ``service``, ``adapters``, ``settings`` | ``core``.
A layer imports only those below it; ARCHITECTURE.md tells the way through them.
"""

import logging

# mitmproxy shows everybody's INFO; alembic tells each of its plugins while it is imported.
logging.getLogger("alembic").setLevel(logging.WARNING)
