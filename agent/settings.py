"""All settings of the agent, read once from the environment. A blank value counts as not set."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

POD_ID = re.compile(r"[A-Za-z0-9_]{1,64}")
"""What RunPod's ids look like. Nothing else is put into a query, an address or an argument."""
TOKEN = re.compile(r"[\x21-\x7e]{1,512}")


class WrongSettings(ValueError):
    """Every fault, one line each: the variable, its value and what is allowed. Never a secret's value."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The RunPod pod that the agent runs in, as RunPod's environment names it."""

    id: str
    api_key: str | None = field(repr=False)
    """The key that RunPod scopes to this pod; None: only runpodctl, which may have its own, can be tried."""
    api_base: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    host: str
    port: int
    interval_s: float
    token: str | None = field(repr=False)
    """None: everybody may ask everything, and there is no lease."""
    comfyui_url: str
    comfyui_dir: Path
    output_dir: Path
    input_dir: Path
    log_file: Path
    model_sync_status: Path | None
    lease_s: float
    """0: no lease."""
    boot_grace_s: float
    hard_max_s: float
    queue_silence_s: float
    max_part_bytes: int
    upload_keep_s: float
    pod: Pod | None
    """None outside RunPod."""


NAMES = frozenset(
    {
        "AGENT_HOST", "AGENT_PORT", "AGENT_INTERVAL_S", "AGENT_COMFYUI_DIR", "AGENT_OUTPUT_DIR", "AGENT_INPUT_DIR",
        "AGENT_LOG_FILE", "AGENT_MODEL_SYNC_STATUS", "AGENT_LEASE_S", "AGENT_BOOT_GRACE_S", "AGENT_HARD_MAX_S",
        "AGENT_QUEUE_SILENCE_S", "AGENT_MAX_PART_BYTES", "AGENT_UPLOAD_KEEP_S",
    }
)  # fmt: skip


def unknown_names(environ: Mapping[str, str]) -> Iterable[str]:
    """Names that look like settings of the agent and are none."""
    return sorted(name for name in environ if name.startswith("AGENT_") and name not in NAMES)


class _Reader:
    """Takes values out of an environment and notes what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.faults: list[str] = []

    def raw(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def fault(self, name: str, allowed: str, *, secret: bool = False) -> None:
        shown = "(hidden)" if secret else repr(self.raw(name))
        self.faults.append(f"{name}={shown}: {allowed}")

    def number[N: (int, float)](
        self, name: str, default: N, kind: Callable[[str], N], least: N, most: N, unit: str
    ) -> N:
        told = self.raw(name)
        if told is None:
            return default
        try:
            value = kind(told)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            self.fault(name, f"{unit} from {least:g} to {most:g}")
            return default
        return value

    def seconds(self, name: str, default: float, least: float, most: float) -> float:
        return self.number(name, default, float, least, most, "seconds")

    def path(self, name: str, default: Path) -> Path:
        told = self.raw(name)
        if told is None:
            return default
        if not Path(told).is_absolute():
            self.fault(name, "an absolute path")
        return Path(told)

    def origin(self, name: str, default: str) -> str:
        told = self.raw(name)
        if told is None:
            return default
        try:
            parts = urlsplit(told)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.query or parts.fragment:
            self.fault(name, "an http(s) address")
        return told.rstrip("/")

    def secret(self, name: str) -> str | None:
        told = self.raw(name)
        if told is not None and not TOKEN.fullmatch(told):
            self.fault(name, "up to 512 printable ASCII characters without spaces", secret=True)
        return told


DAY_S = 86400.0
HARD_MAX_S = 4 * 3600.0


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Raises WrongSettings with every fault at once."""
    reader = _Reader(environ)
    comfyui_dir = reader.path("AGENT_COMFYUI_DIR", Path("/workspace/ComfyUI"))
    sync_status = reader.path("AGENT_MODEL_SYNC_STATUS", Path())
    lease_s = reader.seconds("AGENT_LEASE_S", 1200.0, 0.0, DAY_S)
    boot_grace_s = reader.seconds("AGENT_BOOT_GRACE_S", 2700.0, 1.0, DAY_S)
    hard_max_s = reader.seconds("AGENT_HARD_MAX_S", max(HARD_MAX_S, lease_s, boot_grace_s), 1.0, 30 * DAY_S)
    if hard_max_s < max(lease_s, boot_grace_s):
        reader.fault("AGENT_HARD_MAX_S", "at least AGENT_LEASE_S and AGENT_BOOT_GRACE_S")
    settings = Settings(
        host=reader.raw("AGENT_HOST") or "0.0.0.0",  # noqa: S104 - RunPod's proxy comes from outside the container
        port=reader.number("AGENT_PORT", 8000, int, 0, 65535, "a whole number"),
        interval_s=reader.seconds("AGENT_INTERVAL_S", 1.0, 0.1, 60.0),
        token=reader.secret("AUTH_TOKEN"),
        comfyui_url=reader.origin("COMFYUI_URL", "http://127.0.0.1:8188"),
        comfyui_dir=comfyui_dir,
        output_dir=reader.path("AGENT_OUTPUT_DIR", comfyui_dir / "output"),
        input_dir=reader.path("AGENT_INPUT_DIR", comfyui_dir / "input"),
        log_file=reader.path("AGENT_LOG_FILE", comfyui_dir / "user" / "comfyui.log"),
        model_sync_status=None if sync_status == Path() else sync_status,
        lease_s=lease_s,
        boot_grace_s=boot_grace_s,
        hard_max_s=hard_max_s,
        queue_silence_s=reader.seconds("AGENT_QUEUE_SILENCE_S", 300.0, 1.0, DAY_S),
        max_part_bytes=reader.number(
            "AGENT_MAX_PART_BYTES", 90_000_000, int, 1, 2_000_000_000, "a whole number of bytes"
        ),
        upload_keep_s=reader.seconds("AGENT_UPLOAD_KEEP_S", 6 * 3600.0, 60.0, 30 * DAY_S),
        pod=_read_pod(reader),
    )
    if reader.faults:
        raise WrongSettings(reader.faults)
    return settings


def _read_pod(reader: _Reader) -> Pod | None:
    pod_id = reader.raw("RUNPOD_POD_ID")
    api_base = reader.origin("RUNPOD_API_BASE", "https://api.runpod.io")
    if pod_id is None:
        return None
    if not POD_ID.fullmatch(pod_id):
        reader.fault("RUNPOD_POD_ID", "letters, digits and '_'")
    return Pod(id=pod_id, api_key=reader.secret("RUNPOD_API_KEY"), api_base=api_base)
