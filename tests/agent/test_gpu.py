"""The reader of NVML, over a stand-in for the driver's module."""

import pynvml
import pytest

from agent.gpu import GpuReading, NvmlReader
from tests.agent.nvml import FakeGpu, FakeNvml

UNSUPPORTED = -pynvml.NVML_ERROR_NOT_SUPPORTED


class Dial:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def dial() -> Dial:
    return Dial()


def test_every_value_is_in_the_units_of_the_contract(dial: Dial) -> None:
    reader = NvmlReader(dial, FakeNvml([FakeGpu(percent=37, used=10, total=20)]))
    assert reader.read() == [GpuReading(0, "NVIDIA H100", 37.0, 10, 20, 40.0, 60.5)]


def test_handles_are_kept_between_readings(dial: Dial) -> None:
    nvml = FakeNvml([FakeGpu(), FakeGpu()])
    reader = NvmlReader(dial, nvml)
    for _ in range(10):
        assert [gpu.index for gpu in reader.read()] == [0, 1]
    assert (nvml.inits, nvml.handles_asked) == (1, 2)
    reader.close()
    assert nvml.shutdowns == 1


def test_no_gpu_is_an_empty_list(dial: Dial) -> None:
    assert NvmlReader(dial, FakeNvml()).read() == []


def test_what_one_gpu_cannot_tell_is_none_and_the_rest_is_told(dial: Dial) -> None:
    nvml = FakeNvml(
        [FakeGpu(percent=UNSUPPORTED, celsius=UNSUPPORTED, milliwatts=-pynvml.NVML_ERROR_NO_PERMISSION)]
    )
    assert NvmlReader(dial, nvml).read() == [GpuReading(0, "NVIDIA H100", None, 1, 2, None, None)]
    assert nvml.shutdowns == 0


def test_an_older_driver_tells_memory_in_its_first_version(dial: Dial) -> None:
    assert NvmlReader(dial, FakeNvml([FakeGpu(knows_memory_v2=False)])).read()[0].memory_used_bytes == 1001


def test_a_divided_gpu_is_told_as_its_instances(dial: Dial) -> None:
    parts = [FakeGpu("MIG 1g.10gb", percent=UNSUPPORTED), FakeGpu("MIG 2g.20gb", percent=UNSUPPORTED)]
    readings = NvmlReader(dial, FakeNvml([FakeGpu(mig=parts), FakeGpu("whole", knows_mig=False)])).read()
    assert [(one.index, one.name, one.utilization_percent) for one in readings] == [
        (0, "MIG 1g.10gb", None),
        (1, "MIG 2g.20gb", None),
        (2, "whole", 0.0),
    ]


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_UNKNOWN])
def test_a_lost_driver_leaves_the_gpus_known_and_their_values_unknown(dial: Dial, error: int) -> None:
    nvml = FakeNvml([FakeGpu(percent=50)])
    reader = NvmlReader(dial, nvml)
    reader.read()
    nvml.trouble = error
    assert reader.read() == [GpuReading(0, "NVIDIA H100")]
    assert reader.read() == [GpuReading(0, "NVIDIA H100")]
    nvml.trouble = 0
    dial.now_s += 1.0
    assert reader.read()[0].utilization_percent == 50.0
    assert nvml.inits == 2


def test_a_missing_driver_is_asked_for_ever_more_slowly_and_found_when_it_comes(dial: Dial) -> None:
    nvml = FakeNvml([FakeGpu()], trouble=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    reader = NvmlReader(dial, nvml)
    for _ in range(600):
        assert reader.read() == []
        dial.now_s += 1.0
    assert 10 <= nvml.inits <= 20
    nvml.trouble = 0
    dial.now_s += 60.0
    assert len(reader.read()) == 1


def test_the_real_module_without_a_driver_says_no_gpu(dial: Dial) -> None:
    """Where there is a driver, whatever it says must be readable."""
    reader = NvmlReader(dial)
    assert all(isinstance(reading, GpuReading) for reading in reader.read())
    reader.close()
