"""A mitmproxy addon that fronts shared ComfyUI servers and moves bursting users to private GPU pods.

The layers, from the top: ``wiring`` | ``hooks``, ``site`` | ``service``, ``adapters``, ``settings`` | ``core``.
A layer imports only those below it; ARCHITECTURE.md tells the way through them.
"""
