"""Pods rented from RunPod: ``sdk_cloud`` over the ``runpod`` SDK (GraphQL).

The SDK blocks, keeps one key per process and pastes every value into the text of a query. The modules
here take that apart: ``lane`` (threads), ``binding`` (the process's one SDK), ``pasted`` and ``order`` (what
may be sent), ``answers`` (what comes back) and ``refusals`` (what a failure means).
"""

from comfy_gateway.adapters.runpod.order import RunPodOrder
from comfy_gateway.adapters.runpod.sdk_cloud import RunPodSdkCloud

__all__ = ["RunPodOrder", "RunPodSdkCloud"]
