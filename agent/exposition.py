"""A sample as Prometheus metrics, and who wants it so."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from agent.sampler import Sample

PROMETHEUS = ("text/plain", "application/openmetrics-text")
JSON = ("application/json", "application/*", "*/*")
SYNC_STATES = ("idle", "running", "failed")


def wants_prometheus(accept: str) -> bool:
    """Whether the Accept header prefers one of Prometheus's formats to JSON. JSON where it says nothing."""
    return _best(accept, PROMETHEUS) > _best(accept, JSON)


def _best(accept: str, kinds: tuple[str, ...]) -> tuple[float, int]:
    """The highest weight of these kinds, and how early it stands; below everything where none is accepted."""
    found = [(0.0, -len(accept) - 1)]
    for place, part in enumerate(accept.split(",")):
        kind, *parameters = (word.strip() for word in part.split(";"))
        if kind.lower() not in kinds:
            continue
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if weight > 0:
            found.append((weight, -place))
    return max(found)


class SampleMetrics(Collector):
    """Tells the newest sample; what could not be read is left out, as a gap in the graph."""

    def __init__(self, newest: Callable[[], Sample | None]) -> None:
        self._newest = newest

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        sample = self._newest()
        if sample is None:
            return
        machine = sample.machine
        yield from _gauge("uptime_seconds", "Since the agent's start", sample.uptime_s)
        yield from _gpus(sample)
        yield from _gauge("cpu_percent", "Of what the container may use", machine.cpu_percent)
        yield from _gauge("memory_used_bytes", "Of the container", machine.memory_used_bytes)
        yield from _gauge("memory_total_bytes", "The container's limit", machine.memory_total_bytes)
        yield from _gauge("disk_used_bytes", "Of ComfyUI's disk", machine.disk_used_bytes)
        yield from _gauge("disk_total_bytes", "Of ComfyUI's disk", machine.disk_total_bytes)
        queue = sample.queue
        yield from _gauge("comfyui_up", "Whether ComfyUI answers", 1 if queue else 0)
        yield from _gauge("comfyui_queue_running", "Prompts", queue.running if queue else None)
        yield from _gauge("comfyui_queue_pending", "Prompts", queue.pending if queue else None)
        if sync := machine.model_sync:
            states = GaugeMetricFamily(
                "comfy_agent_model_sync_state", "1 for the present one", labels=["state"]
            )
            for state in SYNC_STATES:
                states.add_metric([state], float(sync.state == state))
            yield states
            yield from _gauge("model_sync_done_bytes", "Of the models to fetch", sync.done_bytes)
            yield from _gauge("model_sync_total_bytes", "Of the models to fetch", sync.total_bytes)


def _gauge(name: str, meaning: str, value: float | None) -> Iterator[Metric]:
    if value is not None:
        yield GaugeMetricFamily(f"comfy_agent_{name}", meaning, value=value)


def _gpus(sample: Sample) -> Iterator[Metric]:
    for name in (
        "utilization_percent", "memory_used_bytes", "memory_total_bytes", "temperature_celsius", "power_watts",
    ):  # fmt: skip
        family = GaugeMetricFamily(f"comfy_agent_gpu_{name}", "As NVML says", labels=["index", "name"])
        for gpu in sample.gpus:
            value = getattr(gpu, name)
            if value is not None:
                family.add_metric([str(gpu.index), gpu.name or ""], float(value))
        if family.samples:
            yield family


class Exposition:
    """Writes the newest sample in the format that the asker prefers."""

    def __init__(self, newest: Callable[[], Sample | None]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(SampleMetrics(newest))

    def written(self, accept: str) -> tuple[bytes, str]:
        """The body and its Content-Type."""
        write, content_type = choose_encoder(accept)
        return write(self._registry), content_type
