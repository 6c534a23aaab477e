"""``run_gateway.sh user``: adds, lists and removes the people of ``AUTH_MODE=tokens``.

Beside the gateway, which only reads the file, and within seconds of every change.
"""
