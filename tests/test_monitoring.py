"""The files in docs/monitoring/ ask for metrics that there are."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from comfy_gateway.service.meters import Meters
from comfy_gateway.site.relay.limits import RelayStats
from tests.programs import require_program

FOLDER = Path(__file__).parent.parent / "docs" / "monitoring"
NAME = re.compile(r"comfy_gateway_[a-z_]+")


def known() -> set[str]:
    meters = Meters()
    meters.watch_values("comfy_gateway_relay", "The relay's", RelayStats())
    found: set[str] = set()
    for metric in meters.registry.collect():
        kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        found |= {metric.name + ending for ending in kinds.get(metric.type, ("",))}
    return found


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_every_metric_that_is_asked_for_exists(name: str) -> None:
    asked = set(NAME.findall((FOLDER / name).read_text()))
    assert len(asked) >= 6
    assert asked <= known()


def test_the_dashboard_has_a_query_in_every_panel() -> None:
    panels = json.loads((FOLDER / "grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(target["expr"] for panel in panels for target in panel["targets"])


def test_promtool_accepts_the_rules() -> None:
    checked = subprocess.run(
        [require_program("promtool"), "check", "rules", str(FOLDER / "alerts.yml")],
        capture_output=True,
        check=False,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "9 rules found" in checked.stdout
