"""The import of RunPod's SDK, for whoever talks through it and for the doctor, who has Python's own library alone."""

import importlib
from typing import Any


def import_sdk() -> Any:
    """Import ``runpod`` without the name of this machine's processor. Raises ImportError.

    The SDK's part for serverless workers asks py-cpuinfo for that name as soon as it is imported, which takes a
    second and starts Python processes that measure the processor. An answer without a name is one that it knows.
    """
    cpuinfo: Any = importlib.import_module("cpuinfo")
    ask = cpuinfo.get_cpu_info
    cpuinfo.get_cpu_info = dict
    try:
        return importlib.import_module("runpod")
    finally:
        cpuinfo.get_cpu_info = ask
