"""A stand-in for the module pynvml: GPUs as data, and a driver that can fail."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


class FakeNvmlError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass
class FakeGpu:
    """A value that is an int below 0 is the NVML error of that number."""

    name: str = "NVIDIA H100"
    percent: int = 0
    used: int = 1
    total: int = 2
    celsius: int = 40
    milliwatts: int = 60_500
    mig: list["FakeGpu"] | None = None
    knows_mig: bool = True
    knows_memory_v2: bool = True
    mig_slots: int = 7


@dataclass
class FakeNvml:
    gpus: list[FakeGpu] = field(default_factory=list)
    trouble: int = 0
    """The error of every call, 0 for none."""
    inits: int = 0
    shutdowns: int = 0
    handles_asked: int = 0
    NVMLError = FakeNvmlError
    nvmlMemory_v2 = pynvml.nvmlMemory_v2
    NVML_TEMPERATURE_GPU = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("NVML_ERROR_"):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def _told(self, value: Any) -> Any:
        if self.trouble:
            raise FakeNvmlError(self.trouble)
        if isinstance(value, int) and value < 0:
            raise FakeNvmlError(-value)
        return value

    def nvmlInit(self) -> None:
        self.inits += 1
        self._told(0)

    def nvmlShutdown(self) -> None:
        self.shutdowns += 1
        self._told(0)

    def nvmlDeviceGetCount(self) -> Any:
        return self._told(len(self.gpus))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        self.handles_asked += 1
        return self._told(self.gpus[index])

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> Any:
        return self._told(gpu.name)

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> Any:
        self._told(0 if gpu.knows_mig else -pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [0 if gpu.mig is None else 1, 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> Any:
        return self._told(gpu.mig_slots)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, slot: int) -> Any:
        assert gpu.mig is not None
        self._told(0 if slot < len(gpu.mig) else -pynvml.NVML_ERROR_NOT_FOUND)
        return gpu.mig[slot]

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> Any:
        return SimpleNamespace(gpu=self._told(gpu.percent))

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu, version: int | None = None) -> Any:
        self._told(-pynvml.NVML_ERROR_FUNCTION_NOT_FOUND if version and not gpu.knows_memory_v2 else 0)
        # The first version counts the driver's reserve as used.
        return SimpleNamespace(used=self._told(gpu.used) + (0 if version else 1000), total=gpu.total)

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, _sensor: int) -> Any:
        return self._told(gpu.celsius)

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> Any:
        return self._told(gpu.milliwatts)
