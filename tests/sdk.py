"""RunPod's SDK for the tests that call it themselves, imported as the gateway does: quickly."""

from comfy_gateway.adapters.runpod_import import import_sdk

runpod = import_sdk()
AuthenticationError: type[Exception] = runpod.error.AuthenticationError
QueryError: type[Exception] = runpod.error.QueryError
