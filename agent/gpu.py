"""What NVML says about the GPUs of this container."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pynvml

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 1.0
MOST_BACKOFF_S = 60.0


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU or MIG instance. None: cannot be read."""

    index: int
    name: str | None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None

    def unread(self) -> "GpuReading":
        """The same GPU, of which nothing is known at the moment."""
        return GpuReading(self.index, self.name)


class GpuReader(Protocol):
    """Blocking; called from one thread."""

    def read(self) -> list[GpuReading]:
        """All GPUs in a lasting order; empty where there are none. Never raises for trouble with the driver."""

    def close(self) -> None:
        """Let go of the driver."""


@dataclass(frozen=True, slots=True)
class _Device:
    known: GpuReading
    handle: Any


class NvmlReader:
    """Keeps NVML and its handles open, and opens them anew, ever more slowly, when the driver was lost.

    nvml       the module pynvml, or one that behaves like it
    monotonic  seconds that never go back

    While the driver is lost, the GPUs that were known are told with None for every value.
    """

    def __init__(self, monotonic: Callable[[], float], nvml: Any = pynvml) -> None:
        self._nvml = nvml
        self._monotonic = monotonic
        self._devices: list[_Device] = []
        self._known: list[GpuReading] = []
        self._is_open = False
        self._closed_until_s = monotonic()
        self._backoff_s = FIRST_BACKOFF_S
        # What one GPU cannot tell is no trouble with the driver.
        self._mute = tuple(
            getattr(nvml, f"NVML_ERROR_{name}")
            for name in ("NOT_SUPPORTED", "NO_PERMISSION", "NO_DATA", "NOT_FOUND", "FUNCTION_NOT_FOUND",
                         "ARGUMENT_VERSION_MISMATCH", "NOT_READY")
        )  # fmt: skip

    def read(self) -> list[GpuReading]:
        if not self._is_open and self._monotonic() < self._closed_until_s:
            return self._unread()
        try:
            if not self._is_open:
                self._open()
            readings = [self._reading(device) for device in self._devices]
        except self._nvml.NVMLError as error:
            self._lose(error)
            return self._unread()
        self._backoff_s = FIRST_BACKOFF_S
        return readings

    def close(self) -> None:
        was_open, self._is_open, self._devices = self._is_open, False, []
        if was_open:
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError as error:
                logger.debug("NVML did not shut down: %s", error)

    def _unread(self) -> list[GpuReading]:
        return [known.unread() for known in self._known]

    def _open(self) -> None:
        self._nvml.nvmlInit()
        self._is_open = True
        self._devices = []
        for index in range(self._nvml.nvmlDeviceGetCount()):
            self._devices.extend(self._found(self._nvml.nvmlDeviceGetHandleByIndex(index)))
        self._known = [device.known for device in self._devices]
        logger.info("NVML shows %s", ", ".join(str(gpu.name) for gpu in self._known) or "no GPU")

    def _found(self, handle: Any) -> list[_Device]:
        """The GPU itself, or its MIG instances where it is divided: then only those can be used."""
        mig_mode = self._told(self._nvml.nvmlDeviceGetMigMode, handle)
        handles = self._mig_instances(handle) if mig_mode and mig_mode[0] == 1 else [handle]
        first = len(self._devices)
        return [
            _Device(GpuReading(first + offset, self._told(self._nvml.nvmlDeviceGetName, one)), one)
            for offset, one in enumerate(handles)
        ]

    def _mig_instances(self, handle: Any) -> list[Any]:
        most = self._told(self._nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
        asked = (
            self._told(self._nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot) for slot in range(most)
        )
        return [instance for instance in asked if instance is not None]

    def _reading(self, device: _Device) -> GpuReading:
        nvml, handle = self._nvml, device.handle
        usage = self._told(nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = self._memory(handle)
        celsius = self._told(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        milliwatts = self._told(nvml.nvmlDeviceGetPowerUsage, handle)
        return replace(
            device.known,
            utilization_percent=None if usage is None else float(usage.gpu),
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            temperature_celsius=None if celsius is None else float(celsius),
            power_watts=None if milliwatts is None else milliwatts / 1000,
        )

    def _memory(self, handle: Any) -> Any:
        """The second version leaves the driver's own reserve out of "used", as nvidia-smi does."""
        ask = self._nvml.nvmlDeviceGetMemoryInfo
        newer = self._told(ask, handle, self._nvml.nvmlMemory_v2)
        return self._told(ask, handle) if newer is None else newer

    def _told(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """What NVML answers, or None where this GPU cannot tell. Raises NVMLError when the driver is in trouble."""
        try:
            return ask(*arguments)
        except self._nvml.NVMLError as error:
            if error.value in self._mute:
                return None
            raise

    def _lose(self, error: Exception) -> None:
        if self._known or self._backoff_s == FIRST_BACKOFF_S:
            logger.warning("NVML: %s; asked again in %g s", error, self._backoff_s)
        self.close()
        self._closed_until_s = self._monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, MOST_BACKOFF_S)
