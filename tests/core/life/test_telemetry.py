"""What the agent's JSON says about idleness."""

from typing import Any

import pytest

from comfy_gateway.core.life.telemetry import Sample, parse_sample

MESSAGE: dict[str, Any] = {
    "timestamp": 1795444723.5,
    "uptime_s": 12.0,
    "gpus": [
        {
            "index": 0,
            "name": "RTX 4090",
            "utilization_percent": 0.0,
            "memory_used_bytes": 1,
            "memory_total_bytes": 2,
            "temperature_celsius": 40.0,
            "power_watts": 60.0,
        }
    ],
    "cpu_percent": 3.0,
    "memory_used_bytes": 1,
    "memory_total_bytes": 2,
    "disk_used_bytes": 1,
    "disk_total_bytes": 2,
    "comfyui": {"queue_running": 0, "queue_pending": 0},
    "model_sync": {"state": "idle", "done_bytes": 0, "total_bytes": 0},
}


def gpus(*readings: float | None) -> list[dict[str, float | None]]:
    return [{"utilization_percent": reading} for reading in readings]


def test_the_message_of_the_contract_is_read() -> None:
    sample = parse_sample(MESSAGE)
    assert sample == Sample(0.0, 0, 0)
    assert sample.is_queue_empty is True


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"gpus": gpus(0, 40, 7)}, Sample(40.0, 0, 0)),
        ({"gpus": gpus(100)}, Sample(100.0, 0, 0)),
        ({"gpus": gpus(0, None)}, Sample(None, 0, 0)),
        ({"gpus": [{}]}, Sample(None, 0, 0)),
        ({"gpus": []}, Sample(None, 0, 0)),
        ({"comfyui": None}, Sample(0.0, None, None)),
        ({"comfyui": {"queue_running": 1}}, Sample(0.0, 1, None)),
        ({"comfyui": {"queue_running": 2, "queue_pending": 3}}, Sample(0.0, 2, 3)),
        ({"model_sync": {"state": "running"}}, Sample(0.0, 0, 0, 0)),
        ({"model_sync": {"state": "running", "done_bytes": 7}}, Sample(0.0, 0, 0, 7)),
        ({"model_sync": {"state": "idle", "done_bytes": 7}}, Sample(0.0, 0, 0)),
        ({"model_sync": {"state": "failed"}}, Sample(0.0, 0, 0)),
        ({"model_sync": None}, Sample(0.0, 0, 0)),
        ({"model_sync": "running"}, Sample(0.0, 0, 0)),
    ],
    ids=str,
)
def test_the_busiest_gpu_counts_and_what_is_not_known_is_none(
    changed: dict[str, Any], expected: Sample
) -> None:
    assert parse_sample(MESSAGE | changed) == expected


def test_fields_that_may_be_missing_are_not_known() -> None:
    assert parse_sample({"gpus": gpus(3)}) == Sample(3.0, None, None)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (None, "no JSON object"),
        ([MESSAGE], "no JSON object"),
        ("{}", "no JSON object"),
        ({}, "'gpus'"),
        ({"gpus": None}, "'gpus'"),
        ({"gpus": {}}, "'gpus'"),
        ({"gpus": [0]}, "'gpus'"),
        ({"gpus": [None]}, "'gpus'"),
        ({"gpus": gpus(-1)}, "'utilization_percent'"),
        ({"gpus": gpus(101)}, "'utilization_percent'"),
        ({"gpus": gpus(float("nan"))}, "'utilization_percent'"),
        ({"gpus": [{"utilization_percent": "0"}]}, "'utilization_percent'"),
        ({"gpus": [{"utilization_percent": False}]}, "'utilization_percent'"),
        ({"gpus": [], "comfyui": 0}, "'comfyui'"),
        ({"gpus": [], "comfyui": []}, "'comfyui'"),
        ({"gpus": [], "comfyui": {"queue_running": -1}}, "'queue_running'"),
        ({"gpus": [], "comfyui": {"queue_running": 0.0}}, "'queue_running'"),
        ({"gpus": [], "comfyui": {"queue_running": 0, "queue_pending": True}}, "'queue_pending'"),
    ],
    ids=str,
)
def test_a_wrong_type_is_refused_naming_the_field(message: Any, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        parse_sample(message)


@pytest.mark.parametrize(
    ("running", "pending", "expected"),
    [(0, 0, True), (1, 0, False), (0, 1, False), (None, 0, None), (0, None, None), (None, None, None)],
)
def test_a_queue_is_empty_only_when_both_numbers_say_so(
    running: int | None, pending: int | None, expected: bool | None
) -> None:
    assert Sample(0.0, running, pending).is_queue_empty is expected
