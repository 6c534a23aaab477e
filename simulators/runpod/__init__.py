"""A stand-in for RunPod: both of its APIs, pods behind their proxy, faults and a ledger.

    cloud = RunPodSimulator(api_key="test-key", delays=Delays(app_ready_s=0.5))
    async with serve(cloud) as served:
        ...  # served.api_base, served.proxy_template
    assert cloud.living() == [] and cloud.ledger.total_usd() < 1

`python -m simulators.runpod --port 3100` runs one alone.
"""

from simulators.clock import FakeClock, RealClock
from simulators.runpod.account import AccountChange
from simulators.runpod.catalog import GPU_TYPES, GpuType, NetworkVolume
from simulators.runpod.cloud import AgentKind, RefusedError, RunPodSimulator
from simulators.runpod.faults import AMBIGUOUS_TEXT, CAPACITY_TEXTS, RESUME_CAPACITY_TEXT, Fault, FaultTable
from simulators.runpod.hosting import Borrowed
from simulators.runpod.ledger import Ledger, LedgerRow
from simulators.runpod.pods import Delays, Phase, PodOrder, SimPod
from simulators.runpod.proxy import ProxyLimits
from simulators.runpod.server import Served, make_app, serve
from simulators.runpod.telemetry import Step, Telemetry

__all__ = [
    "AMBIGUOUS_TEXT",
    "CAPACITY_TEXTS",
    "GPU_TYPES",
    "RESUME_CAPACITY_TEXT",
    "AccountChange",
    "AgentKind",
    "Borrowed",
    "Delays",
    "FakeClock",
    "Fault",
    "FaultTable",
    "GpuType",
    "Ledger",
    "LedgerRow",
    "NetworkVolume",
    "Phase",
    "PodOrder",
    "ProxyLimits",
    "RealClock",
    "RefusedError",
    "RunPodSimulator",
    "Served",
    "SimPod",
    "Step",
    "Telemetry",
    "make_app",
    "serve",
]
