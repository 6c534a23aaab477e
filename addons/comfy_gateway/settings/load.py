"""From the sources to one frozen tree, or to all faults at once."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from comfy_gateway.core.people.hosts import is_loopback
from comfy_gateway.core.people.sign_in import AuthMode
from comfy_gateway.core.requests.classify import NO_RULES, RouteRules
from comfy_gateway.settings import parse
from comfy_gateway.settings.describe import allowed_text
from comfy_gateway.settings.model import Settings, Variable, variables
from comfy_gateway.settings.sources import (
    CONFIG_PATH_NAME,
    DEFAULT_CONFIG_PATH,
    ENVIRONMENT,
    POD_ENV_PREFIX,
    Sources,
    read,
)

PROJECT_ROOT: Final = Path(__file__).resolve().parents[3]
DATABASE_FILE: Final = "gateway.db"
USERS_FILE_NAME: Final = "AUTH_USERS_FILE"

_OUR_PREFIXES: Final = ("RUNPOD_", "GATEWAY_", "DUTY_", "USER_ID_", "BUDGET_", "VAULT_", "AUTH_")
_KNOWN_ELSEWHERE: Final = re.compile(
    r"RUNPOD_(POD_ID|DC_ID|POD_HOSTNAME|CPU_COUNT|MEM_GB|GPU_NAME|PUBLIC_IP|TCP_PORT_\d+|UDP_PORT_\d+|VOLUME_ID"
    r"|PROJECT_ID|ENDPOINT_ID|WEBHOOK_\w+|SECRET_\w+|API_BASE_URL|UA_INTEGRATION)"
    r"|GATEWAY_(POD_TOKEN|COVERAGE|REQUIRE_ALL)|AUTH_TOKEN"
)
"""Set by RunPod inside its pods, or read by its SDK, our pod image and the tests."""

_SHOWN_LENGTH: Final = 120
_DEFAULT: Final = "default"
_NEAR_ENOUGH: Final = 0.8


class SettingsError(ValueError):
    """Something that is set cannot be used. Holds every fault, one line each, and no secret."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load(environ: Mapping[str, str] | None = None, *, root: Path | None = None) -> Settings:
    """Read all settings; ``environ`` is the process's environment unless given.

    ``.env``, the settings file and relative paths are looked for below ``root`` (the project's folder),
    whatever the current folder is. Raises SettingsError with every fault.
    """
    root = (root or PROJECT_ROOT).resolve()
    known = variables()
    sources = read(os.environ if environ is None else environ, root, frozenset(known))
    given = _given(known, sources)
    routes, route_faults = _routes(sources)
    faults = [*sources.faults, *route_faults]

    state_dir = given["GATEWAY_STATE_DIR"].value
    given.setdefault(
        "GATEWAY_DATABASE_URL", _Given(f"sqlite+aiosqlite:///{state_dir}/{DATABASE_FILE}", _DEFAULT)
    )
    wrong = _find_wrong(known, given, root)
    faults += [
        _fault(known[name], given.get(name), reason)
        for name, reason in wrong.items()
        if name not in given or given[name].origin != _DEFAULT  # made from another value that is wrong
    ]
    # What is wrong by itself is left out, so that the rest can still be judged together.
    settings = _validate(known, {**_without(given, wrong), **_stand_ins(wrong)}, root)
    faults += [text for names, text in _contradictions(settings) if not names & wrong.keys()]
    if faults:
        raise SettingsError(faults)
    return settings.model_copy(
        update={"routes": routes, "warnings": tuple(_warnings(settings, sources, known))}
    )


def load_users_file(environ: Mapping[str, str] | None = None, *, root: Path | None = None) -> Path:
    """``AUTH_USERS_FILE`` alone: who may sign in can be changed while other settings are missing or wrong.

    Raises SettingsError for what is wrong with this one, or with the form of a source.
    """
    root = (root or PROJECT_ROOT).resolve()
    known = variables()
    sources = read(os.environ if environ is None else environ, root, frozenset(known))
    if sources.faults:
        raise SettingsError(sources.faults)
    found = _given(known, sources)[USERS_FILE_NAME]
    stand_ins = _stand_ins({"DUTY_POD_URL": "", "GATEWAY_STATE_DIR": "", "GATEWAY_DATABASE_URL": ""})
    stand_ins |= {CONFIG_PATH_NAME: _Given(DEFAULT_CONFIG_PATH, _DEFAULT), USERS_FILE_NAME: found}
    if wrong := _find_wrong(known, stand_ins, root):
        raise SettingsError([_fault(known[name], found, reason) for name, reason in wrong.items()])
    return _validate(known, stand_ins, root).access.users_file


@dataclass(frozen=True, slots=True)
class _Given:
    value: Any
    origin: str


def _given(known: Mapping[str, Variable], sources: Sources) -> dict[str, _Given]:
    given = {
        "GATEWAY_STATE_DIR": _Given(known["GATEWAY_STATE_DIR"].var.default_text, _DEFAULT),
        CONFIG_PATH_NAME: _Given(DEFAULT_CONFIG_PATH, _DEFAULT),
        USERS_FILE_NAME: _Given(known[USERS_FILE_NAME].var.default_text, _DEFAULT),
    }
    for name, variable in known.items():
        found = sources.given(name, is_ended_by_blank=variable.var.is_ended_by_blank)
        if found is not None:
            given[name] = _Given(*found)
    if pod_env := sources.pod_env():
        given[f"{POD_ENV_PREFIX}<NAME>"] = _Given(pod_env, "")
    return given


def _routes(sources: Sources) -> tuple[RouteRules, list[str]]:
    for layer in sources.layers:
        if layer.routes is None:
            continue
        if not isinstance(layer.routes, Mapping):
            return NO_RULES, [f"routes in {layer.origin}: allowed is a mapping of path patterns to classes"]
        try:
            return RouteRules.parse(layer.routes), []
        except ValueError as error:
            return NO_RULES, [f"routes in {layer.origin}: {error}"]
    return NO_RULES, []


def _validate(known: Mapping[str, Variable], given: Mapping[str, _Given], root: Path) -> Settings:
    tree: dict[str, Any] = {}
    for name, found in given.items():
        *groups, leaf = known[name].path
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = found.value
    return Settings.model_validate(tree, context={"root": root})


def _find_wrong(known: Mapping[str, Variable], given: Mapping[str, _Given], root: Path) -> dict[str, str]:
    """Variables that are wrong by themselves, each with what is allowed."""
    try:
        _validate(known, given, root)
    except ValidationError as error:
        by_path = {variable.path: name for name, variable in known.items()}
        wrong: dict[str, str] = {}
        for detail in error.errors(include_url=False, include_input=False):
            location = tuple(str(part) for part in detail["loc"])
            name = next(by_path[location[:n]] for n in range(len(location), 0, -1) if location[:n] in by_path)
            cause = detail.get("ctx", {}).get("error")
            wrong.setdefault(name, str(cause) if isinstance(cause, ValueError) else allowed_text(known[name]))
        return wrong
    return {}


def _without(given: Mapping[str, _Given], wrong: Mapping[str, str]) -> dict[str, _Given]:
    return {name: found for name, found in given.items() if name not in wrong}


def _stand_ins(wrong: Mapping[str, str]) -> dict[str, _Given]:
    """Values for required settings that are wrong; nothing is ever started with them."""
    values = {
        "DUTY_POD_URL": "http://localhost",
        "GATEWAY_STATE_DIR": "state",
        "GATEWAY_DATABASE_URL": "sqlite+aiosqlite:///state.db",
        CONFIG_PATH_NAME: DEFAULT_CONFIG_PATH,
        USERS_FILE_NAME: "users.yaml",
    }
    return {name: _Given(value, _DEFAULT) for name, value in values.items() if name in wrong}


def _fault(variable: Variable, found: _Given | None, allowed: str) -> str:
    if found is None:
        return f"{variable.name} is not set: allowed is {allowed}"
    shown = " (its value is not shown)" if variable.var.is_secret else f"={_shown(found.value)}"
    origin = f" ({found.origin})" if found.origin else ""
    return f"{variable.name}{shown}{origin}: allowed is {allowed}"


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    text = re.sub(r"//.*@", "//***@", text, flags=re.DOTALL)  # a password in an address
    shown = repr(text)
    return shown if len(shown) <= _SHOWN_LENGTH else f"{shown[:_SHOWN_LENGTH]}…"


def _contradictions(settings: Settings) -> Iterator[tuple[set[str], str]]:
    """What is wrong only together: the variables involved, and the fault."""
    pod, telemetry, boot = settings.pod, settings.telemetry, settings.boot
    if settings.can_provision:
        if not (
            pod.template_id or pod.image_name or {"template_id", "image_name"} & pod.extra_payload.keys()
        ):
            yield (
                {"RUNPOD_TEMPLATE_ID", "RUNPOD_IMAGE_NAME", "RUNPOD_EXTRA_PAYLOAD"},
                "RUNPOD_TEMPLATE_ID and RUNPOD_IMAGE_NAME are not set: RUNPOD_API_KEY needs one of them",
            )
        if not pod.buying.usual:
            yield (
                {"RUNPOD_GPU_TYPE_ID", "RUNPOD_CANDIDATES"},
                "RUNPOD_GPU_TYPE_ID is not set: with RUNPOD_API_KEY at least one GPU type is needed,"
                " or RunPod rents out a machine without a GPU",
            )
    for profile in pod.profiles:
        for team in sorted(profile.teams - pod.teams.keys()):
            yield (
                {"RUNPOD_PROFILES", "GATEWAY_TEAMS"},
                f"RUNPOD_PROFILES: profile {profile.name} is for the team {team}, which GATEWAY_TEAMS does not have",
            )
    for team in sorted(settings.limits.budget_team_daily_usd.keys() - pod.teams.keys()):
        yield (
            {"BUDGET_TEAM_DAILY_USD", "GATEWAY_TEAMS"},
            f"BUDGET_TEAM_DAILY_USD is for the team {team}, which GATEWAY_TEAMS does not have",
        )
    yield from _contradictions_of_sign_in(settings)
    if telemetry.poll_s >= telemetry.idle_s:
        yield (
            {"RUNPOD_TELEMETRY_POLL_S", "RUNPOD_TELEMETRY_IDLE_S"},
            f"RUNPOD_TELEMETRY_POLL_S={telemetry.poll_s:g}: allowed is less than"
            f" RUNPOD_TELEMETRY_IDLE_S={telemetry.idle_s:g}",
        )
    if boot.poll_s >= boot.timeout_s:
        yield (
            {"RUNPOD_STARTUP_POLL_S", "RUNPOD_STARTUP_TIMEOUT_S"},
            f"RUNPOD_STARTUP_POLL_S={boot.poll_s:g}: allowed is less than"
            f" RUNPOD_STARTUP_TIMEOUT_S={boot.timeout_s:g}",
        )


def _contradictions_of_sign_in(settings: Settings) -> Iterator[tuple[set[str], str]]:
    listen, access = settings.listen, settings.access
    if (listen.tls_cert is None) != (listen.tls_key is None):
        missing, given = ("TLS_CERT", "TLS_KEY") if listen.tls_cert is None else ("TLS_KEY", "TLS_CERT")
        yield {missing, given}, f"{missing} is not set: {given} needs it (both may name the same file)"
    if access.auth_mode is AuthMode.BASIC and access.basic is None:
        yield (
            {"AUTH_MODE", "AUTH_BASIC"},
            "AUTH_BASIC is not set: AUTH_MODE=basic needs it, such as @/etc/comfy/htpasswd",
        )
    if access.auth_mode is AuthMode.PROXY and not access.trusted_proxies:
        yield (
            {"AUTH_MODE", "TRUSTED_PROXIES"},
            "TRUSTED_PROXIES is not set: AUTH_MODE=proxy needs the addresses of the proxy that names users",
        )


def _warnings(settings: Settings, sources: Sources, known: Mapping[str, Variable]) -> Iterator[str]:
    for layer in sources.layers:
        is_flat = layer.origin in {ENVIRONMENT, ".env"}
        names = layer.values if is_flat else layer.unknown
        for name in sorted(names):
            if is_flat and (
                name in known or not name.startswith(_OUR_PREFIXES) or _KNOWN_ELSEWHERE.fullmatch(name)
            ):
                continue
            if not is_flat and name.upper() in known:
                yield f"{name} ({layer.origin}) has no effect in that file"
            else:
                yield f"{name} ({layer.origin}) is no setting{_suggestion(name, known, is_flat=is_flat)}"
    if any(network.endswith("/0") for network in settings.access.trusted_proxies):
        yield "TRUSTED_PROXIES names all addresses: every client may say who and where it is"
    if (
        settings.access.auth_mode in {AuthMode.TOKENS, AuthMode.BASIC}
        and not settings.listen.is_public_https
        and not is_loopback(_bracketed(settings.listen.host))
    ):
        yield (
            f"AUTH_MODE={settings.access.auth_mode} on GATEWAY_HOST={settings.listen.host} without HTTPS: tokens and"
            " passwords can be read on the way; set TLS_CERT and TLS_KEY, or GATEWAY_PUBLIC_URL=https://…"
            " where a proxy in front does it"
        )
    for keyword in sorted(parse.KEYWORDS_WITH_A_SETTING.keys() & settings.pod.extra_payload.keys()):
        name = parse.KEYWORDS_WITH_A_SETTING[keyword]
        yield f"RUNPOD_EXTRA_PAYLOAD sets {keyword}, which {name} is for: set it in one place"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _suggestion(name: str, known: Mapping[str, Variable], *, is_flat: bool) -> str:
    for spelt in (name.upper(), f"RUNPOD_{name.upper()}"):
        for near in difflib.get_close_matches(spelt, known, n=1, cutoff=_NEAR_ENOUGH):
            return f"; did you mean {near if is_flat else near.lower()}?"
    return ""
