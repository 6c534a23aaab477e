"""How the children are started: their command lines, and an environment in which nothing of the user's is set."""

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from comfy_gateway.settings.describe import NONE, default_text
from comfy_gateway.settings.model import variables

ROOT: Final = Path(__file__).resolve().parents[2]
DEFAULT_PORT: Final = 8000
BOOT_S: Final = 10
IDLE_S: Final = 15
THRESHOLD_COUNT: Final = 5
WINDOW_S: Final = 60
STEP_S: Final = 0.2
GPU_TYPE: Final = "NVIDIA GeForce RTX 4090"
API_KEY: Final = "demo-key-that-no-one-sells-anything-for"
DATA_CENTRE: Final = "EU-RO-1"
NETWORK_VOLUME: Final = "demovolume"

_OUR_PREFIXES: Final = ("RUNPOD_", "GATEWAY_", "DUTY_", "POD_ENV_", "USER_ID_", "BUDGET_")
_NAMED_PER_VARIABLE: Final = "<"
"""In POD_ENV_<NAME>: no variable by itself."""


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Without any setting of a gateway, and without proxies: everything here is on this machine."""
    return {
        name: value
        for name, value in environ.items()
        if name not in variables()
        and not name.startswith(_OUR_PREFIXES)
        and not name.lower().endswith("_proxy")
    }


def gateway_settings(
    *, port: int, duty_url: str, runpod: Mapping[str, str], state_dir: Path
) -> dict[str, str]:
    """A value for every setting that there is.

    A setting that the environment leaves blank is looked for in ``.env``, which is the user's own: with a real key,
    perhaps. So the ones that are normally not set have a made-up value here, or none where a blank value says "none".
    """
    empty = state_dir / "empty.yaml"
    defaults = {name: default_text(variable) for name, variable in variables().items()}
    chosen = {
        "PORT": str(port),
        "GATEWAY_PUBLIC_URL": "http://127.0.0.1",
        "GATEWAY_STATE_DIR": str(state_dir),
        "VAULT_URL": f"file://{state_dir}/vault",
        "GATEWAY_DATABASE_URL": f"sqlite+aiosqlite:///{state_dir}/gateway.db",
        "GATEWAY_SECRET": secrets.token_urlsafe(32),
        "DUTY_POD_URL": duty_url,
        "TLS_CERT": "",
        "TLS_KEY": "",
        "TRUSTED_PROXIES": "192.0.2.1",
        "AUTH_BASIC": "",
        "AUTH_OPERATORS": "demo-operator",
        "ISOLATION": "actions",
        "ISOLATION_OPERATOR_ROUTES": "/free,/internal/*,/manager/*",
        "FAIR_WEIGHTS": "demo-operator=1",
        "USER_ID_COOKIE": "demo-user",
        "RUNPOD_CONFIG_PATH": str(empty),
        "RUNPOD_API_KEY": API_KEY,
        "RUNPOD_TEMPLATE_ID": "demotemplate",
        "RUNPOD_IMAGE_NAME": "example/comfyui:demo",
        "RUNPOD_GPU_TYPE_ID": GPU_TYPE,
        "RUNPOD_VOLUME_GB": "20",
        "RUNPOD_NETWORK_VOLUME_ID": NETWORK_VOLUME,
        "RUNPOD_REGION": DATA_CENTRE,
        "RUNPOD_EXTRA_PAYLOAD": "{}",
        "RUNPOD_CANDIDATES": "[]",
        "RUNPOD_PROFILES": "{}",
        "GATEWAY_TEAMS": '{"demo": []}',
        "BUDGET_TEAM_DAILY_USD": "demo=1",
        "RUNPOD_HOURS": "daily 00:00-24:00",
        "GATEWAY_ALARM_URLS": ",",  # a list of none
        "POD_MIN_AGENT": "0",
        "RUNPOD_PROMPT_THRESHOLD_COUNT": str(THRESHOLD_COUNT),
        "RUNPOD_PROMPT_THRESHOLD_WINDOW_S": str(WINDOW_S),
        "RUNPOD_STARTUP_POLL_S": "0.5",
        "RUNPOD_STARTUP_TIMEOUT_S": "60",
        "RUNPOD_FAILURE_BACKOFF_S": "5",
        "RUNPOD_TELEMETRY_POLL_S": "1",
        "RUNPOD_TELEMETRY_IDLE_S": str(IDLE_S),
        "RUNPOD_RECONCILE_S": "2",
        "RUNPOD_TERMINATE_ON_EXIT": "1",
        **runpod,
    }
    settings = {name: value for name, value in (defaults | chosen).items() if _NAMED_PER_VARIABLE not in name}
    unset = [name for name, value in settings.items() if value.startswith(NONE)]
    assert not unset, f"the demo has no value for {unset}"
    empty.touch()
    return settings


def gateway_command(port: int, state_dir: Path) -> list[str]:
    """As ``run_gateway.sh serve`` starts it, with mitmproxy's certificates kept out of the home folder."""
    return [
        str(Path(sys.executable).with_name("mitmdump")),
        "--mode",
        "reverse:http://127.0.0.1:9",
        "-s",
        "addons/gateway.py",
        "--listen-host",
        "127.0.0.1",
        "--listen-port",
        str(port),
        "--set",
        "flow_detail=0",
        "--set",
        "termlog_verbosity=info",
        "--set",
        f"confdir={state_dir / 'mitmproxy'}",
    ]


def duty_command() -> list[str]:
    """The shared ComfyUI, on a free port."""
    return [sys.executable, "-m", "simulators.comfyui", "--port", "0", "--step-s", str(STEP_S)]


def runpod_command() -> list[str]:
    """The cloud, on a free port."""
    return [
        *(sys.executable, "-m", "simulators.runpod", "--port", "0", "--api-key", API_KEY),
        *("--boot-s", str(BOOT_S), "--step-s", str(STEP_S)),
        *("--network-volume", f"{NETWORK_VOLUME}={DATA_CENTRE}"),
    ]


def environment() -> dict[str, str]:
    """This process's own, cleaned; the children's lines come as they are written."""
    return clean_environment(os.environ) | {"PYTHONUNBUFFERED": "1"}
