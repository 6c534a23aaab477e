"""Pods rented from RunPod, by either of its APIs: ``sdk_cloud`` over the ``runpod`` SDK (GraphQL, which is to end in
early 2027), ``v2_cloud`` over the REST API v2.

The SDK blocks, keeps one key per process and pastes every value into the text of a query. The modules
here take that apart: ``lane`` (threads), ``binding`` (the process's one SDK), ``pasted`` and ``order`` (what
may be sent), ``answers`` (what comes back) and ``refusals`` (what a failure means). Those that begin with ``v2_``
do the same for the other API, out of the same settings.
"""

from comfy_gateway.adapters.runpod.order import RunPodOrder
from comfy_gateway.adapters.runpod.sdk_cloud import RunPodSdkCloud
from comfy_gateway.adapters.runpod.v2_cloud import RunPodV2Cloud

__all__ = ["RunPodOrder", "RunPodSdkCloud", "RunPodV2Cloud"]
