"""Implementations of the ports in ``core.ports``: RunPod, SQL, HTTP and the clock."""
