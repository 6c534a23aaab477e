"""Settings: where they come from, what is allowed, and what is said when they are wrong."""

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from comfy_gateway.core.keys import Keys
from comfy_gateway.core.money.profiles import Profile, Profiles
from comfy_gateway.core.people.sign_in import AuthMode
from comfy_gateway.core.pods.podname import PodNames
from comfy_gateway.core.ports import Candidate
from comfy_gateway.core.prompts.visibility import Isolation, Visibility
from comfy_gateway.core.requests.classify import RequestClass
from comfy_gateway.core.requests.upstream import Upstream
from comfy_gateway.settings import Settings, SettingsError, load, load_users_file, parse
from comfy_gateway.settings.__main__ import main
from comfy_gateway.settings.describe import default_text, markdown
from comfy_gateway.settings.model import variables
from comfy_gateway.settings.parse import CREATE_POD_KEYWORDS, MAX_POD_NAME_TAG_LENGTH
from tests.sdk import runpod

PROJECT = Path(__file__).parents[1]
DUTY = {"DUTY_POD_URL": "http://localhost:3000/"}
PROVISIONING = {
    **DUTY,
    "RUNPOD_API_KEY": "key",
    "RUNPOD_TEMPLATE_ID": "tpl1",
    "RUNPOD_GPU_TYPE_ID": "NVIDIA L40S",
}

Load = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Loads settings from keywords (the environment) in an empty project."""

    def read(**environ: str) -> Settings:
        return load({**DUTY, **environ}, root=tmp_path)

    return read


def faults_of(environ: Mapping[str, str], root: Path) -> list[str]:
    """What is wrong with an environment."""
    with pytest.raises(SettingsError) as caught:
        load(environ, root=root)
    assert str(caught.value) == "\n".join(caught.value.faults)
    assert all("\n" not in fault for fault in caught.value.faults)
    return caught.value.faults


# --- sources ---


def test_the_defaults_are_those_of_the_design(read: Load, tmp_path: Path) -> None:
    settings = read()
    assert settings.home == Upstream("http", "localhost", 3000)
    assert (settings.listen.port, settings.listen.host) == (8000, "127.0.0.1")
    assert settings.state_dir == tmp_path / ".gateway"
    assert settings.database_url.get_secret_value() == f"sqlite+aiosqlite:///{tmp_path}/.gateway/gateway.db"
    assert settings.identity.rules.is_required
    assert settings.burst.threshold_count == 5
    assert settings.pod_addresses.upstream("p1").url("/x") == "https://p1-8188.proxy.runpod.net/x"
    assert settings.pod_addresses.agent_url("p1") == "https://p1-8000.proxy.runpod.net/metrics"
    assert settings.access.visibility == Visibility(Isolation.ACTIONS)
    assert "/manager/reboot" in settings.access.operator_routes
    assert not settings.can_provision
    assert not settings.listen.is_public_https
    assert settings.warnings == ()


def test_environment_beats_dotenv_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/gateway.yaml").write_text("port: 1\ngpu_count: 2\nvolume_gb: 3\n")
    (tmp_path / ".env").write_text("PORT=11\nRUNPOD_GPU_COUNT=12\n")
    settings = load({**DUTY, "PORT": "21"}, root=tmp_path)
    assert settings.listen.port == 21
    assert settings.pod.gpu_count == 12
    assert settings.pod.volume_gb == 3
    assert settings.pod.container_disk_gb == 50


def test_the_current_folder_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    (project / ".env").write_text("PORT=1\nRUNPOD_CONFIG_PATH=my.yaml\n")
    (project / "my.yaml").write_text("gpu_count: 3\n")
    (elsewhere / ".env").write_text("PORT=2\n")
    monkeypatch.chdir(elsewhere)
    settings = load(DUTY, root=project)
    assert (settings.listen.port, settings.pod.gpu_count) == (1, 3)
    assert settings.config_path == project / "my.yaml"


def test_a_blank_value_counts_as_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RUNPOD_TEMPLATE_ID=\nPORT=  \nRUNPOD_REGION\n")
    old = {"template_id": "tpl1", "region": ["A-1", None, "B-2"], "image_name": None}
    (tmp_path / "old.json").write_text(json.dumps(old))
    settings = load({**DUTY, "RUNPOD_CONFIG_PATH": "old.json", "DUTY_POD_URL": " http://a/ "}, root=tmp_path)
    assert settings.pod.template_id == "tpl1"
    assert settings.pod.regions == ("A-1", "B-2")
    assert settings.listen.port == 8000


def test_a_blank_api_key_disables_private_pods_whatever_weaker_sources_say(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RUNPOD_API_KEY=key\nRUNPOD_TEMPLATE_ID=t\nRUNPOD_GPU_TYPE_ID=g\n")
    assert load(DUTY, root=tmp_path).can_provision
    assert not load({**DUTY, "RUNPOD_API_KEY": ""}, root=tmp_path).can_provision


def test_dotenv_knows_quotes_comments_export_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffPORT=1\n#\nexport GATEWAY_HOST='::1'\nUSER_ID_COOKIE=\"portal\" # why\nPOD_ENV_A=${PORT}\n"
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    settings = load(DUTY, root=tmp_path)
    assert (settings.listen.port, settings.listen.host) == (1, "::1")
    assert settings.identity.cookie == "portal"
    assert settings.pod.env["A"].get_secret_value() == "${PORT}"


def test_an_old_runpod_config_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "runpod.config.json").write_text(
        json.dumps(
            {
                "_comment": "from the first gateway",
                "proxy_template": "https://{pod_id}-3000.proxy.runpod.net/",
                "template_id": "tpl1",
                "image_name": "",
                "gpu_type_id": "NVIDIA A40",
                "gpu_count": 2,
                "volume_gb": 0,
                "container_disk_gb": 40,
                "cloud_type": "secure",
                "region": None,
                "health_path": "/system_stats",
                "startup_timeout_s": 300,
                "startup_poll_s": 2.5,
                "idle_timeout_s": 800,
                "extra_payload": {"min_memory_in_gb": 32},
                "telemetry_template": "https://{pod_id}-{port}.proxy.runpod.net/stats",
                "telemetry_port": 9000,
                "telemetry_poll_s": 30,
                "telemetry_idle_s": 500,
            }
        )
    )
    settings = load(
        {**DUTY, "RUNPOD_API_KEY": "k", "RUNPOD_CONFIG_PATH": "runpod.config.json"}, root=tmp_path
    )
    assert settings.warnings == ()
    assert settings.pod.gpu_type_ids == ("NVIDIA A40",)
    assert settings.pod.cloud_type == "SECURE"
    assert settings.pod.volume_gb == 0
    assert settings.pod.extra_payload == {"min_memory_in_gb": 32}
    assert settings.health.path == "/system_stats"
    assert (settings.boot.timeout_s, settings.boot.poll_s) == (300, 2.5)
    assert settings.telemetry.blind_idle_s == 800
    assert settings.pod_addresses.upstream("p") == Upstream("https", "p-3000.proxy.runpod.net", 443)
    assert settings.pod_addresses.agent_url("p") == "https://p-9000.proxy.runpod.net/stats"


def test_a_file_may_write_names_in_full_and_values_in_its_own_types(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/gateway.yaml").write_text(
        "duty_pod_url: [http://a, 'http://b:81/comfy']\n"
        "require_user_id: no\n"
        "runpod_gpu_type_id:\n  - NVIDIA L40S\n  - NVIDIA A40\n"
        "runpod_terminate_on_exit: true\n"
        "budget_hourly_usd: 7.5\n"
    )
    settings = load({}, root=tmp_path)
    assert settings.duty == (Upstream("http", "a", 80), Upstream("http", "b", 81, "/comfy"))
    assert settings.identity.is_required is False
    assert settings.pod.gpu_type_ids == ("NVIDIA L40S", "NVIDIA A40")
    assert settings.runpod.terminate_on_exit is True
    assert settings.limits.budget_hourly_usd == 7.5


def test_a_name_in_full_beats_the_short_one(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    for text in ("runpod_gpu_count: 3\ngpu_count: 2\n", "gpu_count: 2\nrunpod_gpu_count: 3\n"):
        path.write_text(text)
        assert load({**DUTY, "RUNPOD_CONFIG_PATH": "g.yaml"}, root=tmp_path).pod.gpu_count == 3


def test_pod_env_is_gathered_from_all_sources_and_kept_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "POD_ENV_HF_TOKEN={{ RUNPOD_SECRET_hf }}\nPOD_ENV_A=dotenv\nPOD_ENV_EMPTY=\n"
    )
    (tmp_path / "g.yaml").write_text("pod_env_D: d\npod_env:\n  A: file\n  B: 5\n  C: true\n  N: null\n")
    settings = load({**DUTY, "POD_ENV_A": "environment", "RUNPOD_CONFIG_PATH": "g.yaml"}, root=tmp_path)
    env = {name: value.get_secret_value() for name, value in settings.pod.env.items()}
    assert env == {
        "A": "environment",
        "B": "5",
        "C": "true",
        "D": "d",
        "HF_TOKEN": "{{ RUNPOD_SECRET_hf }}",
    }


def test_routes_come_from_the_file_in_order(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("routes:\n  /b/*: home\n  /a/*: interface\n")
    settings = load({**DUTY, "RUNPOD_CONFIG_PATH": "g.yaml"}, root=tmp_path)
    assert settings.routes.patterns == (("/b/*", RequestClass.HOME), ("/a/*", RequestClass.INTERFACE))


@pytest.mark.parametrize("text", ["", "# nothing\n", "null\n", "pod_env:\nroutes:\n"])
def test_an_empty_file_is_no_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "g.yaml").write_text(text)
    assert load({**DUTY, "RUNPOD_CONFIG_PATH": "g.yaml"}, root=tmp_path).warnings == ()


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("g.yaml", b"a: [1\nb: 2\n", "g.yaml line 2: allowed is YAML or JSON"),
        ("g.json", b'{\n"a": }', "g.json line 2: allowed is YAML or JSON"),
        ("g.json", b"[" * 100_000, "g.json: allowed is YAML or JSON"),
        ("g.yaml", b"- a\n", "g.yaml: allowed is a mapping of names to values"),
        ("g.yaml", b"a: \xff\n", "g.yaml: allowed is text in UTF-8"),
        ("g.yaml", b"routes: [1]\n", "routes in g.yaml: allowed is a mapping of path patterns to classes"),
        ("g.yaml", b"routes: {x: home}\n", "routes in g.yaml: the pattern 'x' must begin with a slash"),
        ("g.yaml", b"pod_env: [1]\n", "pod_env in g.yaml: allowed is a mapping of names to values"),
    ],
    ids=["yaml", "json", "deep", "list", "encoding", "routes", "pattern", "pod_env"],
)
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert faults_of({**DUTY, "RUNPOD_CONFIG_PATH": name}, tmp_path) == [fault]


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    (fault,) = faults_of({**DUTY, "RUNPOD_CONFIG_PATH": "none.yaml"}, tmp_path)
    assert (
        fault == "RUNPOD_CONFIG_PATH='none.yaml' (environment): no such file; allowed is a YAML or JSON file"
    )


def test_a_folder_in_place_of_a_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    (fault,) = faults_of(DUTY, tmp_path)
    assert fault.startswith(".env cannot be read: ")


def test_a_broken_line_of_dotenv_is_named_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1\nRUNPOD_API_KEY='sesame\n")
    (fault,) = faults_of(DUTY, tmp_path)
    assert fault == ".env line 2: allowed is NAME=value"


# --- faults ---

WRONG = [
    ("PORT", "65536", "a whole number from 0 to 65535"),
    ("PORT", "http", "a whole number from 0 to 65535"),
    ("GATEWAY_HOST", "http://x", "an IP address or a host name"),
    ("GATEWAY_PUBLIC_URL", "https://x/path", "without a path"),
    ("GATEWAY_PUBLIC_URL", "comfy.example.com", "http:// or https://"),
    ("DUTY_POD_URL", "localhost:3000", "http:// or https://"),
    ("DUTY_POD_URL", "http://", "has no host name"),
    ("DUTY_POD_URL", "http://a b", "characters that no address has"),
    ("DUTY_POD_URL", "http://a/x y", "characters that no address has"),
    ("DUTY_POD_URL", "http://a?x=1", "must not contain a query"),
    ("DUTY_POD_URL", "http://a,http://a/", "named twice"),
    ("DUTY_POD_URL", "http://[::1", "http:// or https://"),
    ("DUTY_POD_URL", "http://a:99999", "http:// or https://"),
    ("DUTY_POD_URL", ",", "http(s) addresses"),
    ("USER_ID_HEADER", "X User", "the name of a header"),
    ("USER_ID_HEADER", "Cookie", "no other meaning"),
    ("USER_ID_QUERY_KEY", "a&b", "letters, digits"),
    ("USER_ID_COOKIE", "comfy_gateway_user", "the gateway's own"),
    ("REQUIRE_USER_ID", "2", "1, true, yes, on, 0, false, no or off"),
    ("USE_CLIENT_IP", "t", "1, true, yes, on, 0, false, no or off"),
    ("AUTH_MODE", "magic", "none or tokens or basic or proxy"),
    ("AUTH_OPERATORS", "alice,\u00e9", "printable ASCII characters, comma separated"),
    ("AUTH_SESSION_S", "59", "from 60"),
    ("AUTH_MAX_FAILURES", "0", "from 1 to 1000"),
    ("AUTH_FAILURE_WINDOW_S", "0.5", "from 1 to 86400"),
    ("TLS_CERT", "a\0b", "a path"),
    ("PROVIDER", "local", "local is not available in this version"),
    ("RUNPOD_API", "v1", "sdk or v2"),
    ("TRUSTED_PROXIES", "10.0.0.0/8,office", "IP addresses or networks"),
    ("ISOLATION", "some", "off or actions or full"),
    ("ISOLATION_SHARED_INPUTS", "../x", "single slashes, such as shared/pipelines"),
    ("ISOLATION_SHARED_INPUTS", "a//b", "single slashes"),
    ("ISOLATION_SHARED_INPUTS", "3d/all", "nothing in 3d"),
    ("ISOLATION_SHARED_INPUTS", "user-a", "nothing in 3d"),
    ("ISOLATION_OPERATOR_ROUTES", "free", "paths that begin with a slash"),
    ("GATEWAY_STATE_DIR", "a\0b", "a path"),
    ("RUNPOD_CONFIG_PATH", "a\0b", "a path"),
    ("HEALTH_PATH", "queue", "begins with '/'"),
    ("HEALTH_TIMEOUT_S", "0", "a number above 0"),
    ("HEALTH_TIMEOUT_S", "inf", "a number above 0"),
    ("HEALTH_TIMEOUT_S", "nan", "a number above 0"),
    ("RUNPOD_API_BASE", "api.runpod.io", "http:// or https://"),
    ("RUNPOD_RECONCILE_S", "0.5", "a number from 1 to 60"),
    ("POD_MIN_AGENT", "new", "a version such as 0.1.0"),
    ("RUNPOD_POD_NAME_TAG", "Comfy", "a-z and 0-9"),
    ("RUNPOD_POD_NAME_TAG", "a--b", "a-z and 0-9"),
    ("RUNPOD_POD_NAME_TAG", "a-", "a-z and 0-9"),
    ("RUNPOD_POD_NAME_TAG", "a" * 41, "at most 40 characters"),
    ("RUNPOD_TEMPLATE_ID", 'x"y', "an id"),
    ("RUNPOD_IMAGE_NAME", "a b", "a container image"),
    ("RUNPOD_GPU_TYPE_ID", 'L40S"}', "ids of GPU types"),
    ("RUNPOD_GPU_COUNT", "0", "a whole number from 1 to 32"),
    ("RUNPOD_VOLUME_GB", "-1", "a whole number from 0"),
    ("RUNPOD_VOLUME_GB", "1.5", "a whole number from 0"),
    ("RUNPOD_NETWORK_VOLUME_ID", "a b", "an id"),
    ("RUNPOD_CLOUD_TYPE", "cheap", "SECURE, COMMUNITY or ALL"),
    ("RUNPOD_REGION", "EU_1", "ids of data centres"),
    ("RUNPOD_PROXY_PORT", "0", "a whole number from 1 to 65535"),
    ("RUNPOD_PROXY_TEMPLATE", "https://x", "{pod_id} is missing"),
    ("RUNPOD_PROXY_TEMPLATE", "https://{pod_id}.{host}", "no other field"),
    ("RUNPOD_PROXY_TEMPLATE", "https://{pod_id.__class__}", "no other field"),
    ("RUNPOD_PROXY_TEMPLATE", "https://{pod_id!r}", "no other field"),
    ("RUNPOD_PROXY_TEMPLATE", "https://{pod_id:>99}", "no other field"),
    ("RUNPOD_PROXY_TEMPLATE", "https://{pod_id", "a brace is not closed"),
    ("RUNPOD_PROXY_TEMPLATE", "ftp://{pod_id}", "http:// or https://"),
    ("RUNPOD_TELEMETRY_TEMPLATE", "{pod_id}", "http:// or https://"),
    ("RUNPOD_TELEMETRY_PATH", "metrics", "begins with '/'"),
    ("RUNPOD_TELEMETRY_GPU_THRESHOLD", "101", "a number from 0 to 100"),
    ("RUNPOD_PROMPT_THRESHOLD_COUNT", "-1", "a whole number from 0"),
    ("RUNPOD_PROMPT_THRESHOLD_WINDOW_S", "604801", "604800 (a week)"),
    ("RUNPOD_MAX_ACTIVE_SESSIONS", "-1", "a whole number from 0"),
    ("BUDGET_HOURLY_USD", "$5", "a number from 0"),
    ("RUNPOD_CANDIDATES", "[", "no JSON at character"),
    ("RUNPOD_CANDIDATES", "{}", "of which gpu alone is needed"),
    ("RUNPOD_CANDIDATES", '["NVIDIA L40S"]', "an object of gpu, cloud, region, max_usd for a place"),
    ("RUNPOD_CANDIDATES", '[{"cloud": "SECURE"}]', "a text for gpu"),
    ("RUNPOD_CANDIDATES", '[{"gpu": "A40,A30"}]', "one GPU type"),
    ("RUNPOD_CANDIDATES", '[{"gpu": "A40", "cloud": "MINE"}]', "SECURE, COMMUNITY or ALL"),
    ("RUNPOD_CANDIDATES", '[{"gpu": "A40", "region": "EU_1"}]', "ids of data centres"),
    ("RUNPOD_CANDIDATES", '[{"gpu": "A40", "region": 1}]', "a text for region"),
    ("RUNPOD_CANDIDATES", '[{"gpu": "A40", "max_usd": 0}]', "a number above 0"),
    ("RUNPOD_CANDIDATES", '[{"gpu": "A40", "max_usd": true}]', "a number above 0"),
    ("RUNPOD_CANDIDATES", '[{"gpu": "A40", "max_usd": "cheap"}]', "a number above 0"),
    ("RUNPOD_CANDIDATES", '[{"gpu": "A40", "price": 1}]', "there is no 'price'"),
    ("RUNPOD_PROFILES", "[]", "of which candidates alone are needed"),
    ("RUNPOD_PROFILES", '{"b g": {}}', "'b g' is none"),
    ("RUNPOD_PROFILES", '{"big": []}', "an object of candidates, users, teams, on_request for profile big"),
    ("RUNPOD_PROFILES", '{"big": {}}', "at least one candidate for profile big"),
    ("RUNPOD_PROFILES", '{"big": {"candidates": [{"gpu": "A40"}], "users": 1}}', "a list of names"),
    ("RUNPOD_PROFILES", '{"big": {"candidates": [{"gpu": "A40"}], "on_request": "maybe"}}', "1, true, yes"),
    ("BUDGET_TEAM_DAILY_USD", "film", "names of teams with dollars above 0"),
    ("BUDGET_TEAM_DAILY_USD", "film=0", "names of teams with dollars above 0"),
    ("BUDGET_TEAM_DAILY_USD", "=5", "names of teams with dollars above 0"),
    ("RUNPOD_HOURS", "always", "days and times such as"),
    ("RUNPOD_HOURS_ZONE", "Mars/Base", "UTC or a time zone such as Europe/Berlin"),
    ("RUNPOD_HOURS_ZONE", "../etc/passwd", "UTC or a time zone such as Europe/Berlin"),
    ("GATEWAY_TEAMS", "[]", 'such as {"film"'),
    ("GATEWAY_TEAMS", '{"a b": []}', 'such as {"film"'),
    ("GATEWAY_TEAMS", '{"film": 7}', "a list of names for the users of film"),
    ("GATEWAY_KEEP_MB", "-1", "or auto"),
    ("GATEWAY_KEEP_MB", "some", "or auto"),
    ("VAULT_MAX_GB", "-1", "a number from 0"),
    ("VAULT_MAX_DAYS", "a month", "a number from 0"),
    ("VAULT_DEADLINE_S", "0", "a number above 0"),
]

WRONG_SECRETS = [
    ("RUNPOD_API_KEY", "two words", "printable ASCII"),
    ("GATEWAY_ALARM_URLS", "me@example.com", "addresses that apprise knows"),
    ("GATEWAY_SECRET", "too short", "at least 32 characters"),
    ("GATEWAY_DATABASE_URL", "mysql://sesame@host/x", "postgresql+asyncpg"),
    ("GATEWAY_DATABASE_URL", "sesame", "postgresql+asyncpg"),
    ("GATEWAY_DATABASE_URL", "postgresql+asyncpg:///", "postgresql+asyncpg"),
    ("GATEWAY_DATABASE_URL", "sqlite://x", "in memory"),
    ("GATEWAY_DATABASE_URL", "sqlite+aiosqlite:///:memory:", "in memory"),
    ("VAULT_URL", "file://sesame", "three slashes"),
    ("VAULT_URL", "sesame://", "s3://bucket/folder"),
    ("VAULT_URL", "se same://x", "s3://bucket/folder"),
    ("RUNPOD_EXTRA_PAYLOAD", "{sesame", "no JSON at character"),
    ("RUNPOD_EXTRA_PAYLOAD", "[]", "a JSON object"),
    ("RUNPOD_EXTRA_PAYLOAD", '{"name": "sesame"}', "without 'name'"),
    ("RUNPOD_EXTRA_PAYLOAD", '{"env": {}}', "without 'env'"),
    ("RUNPOD_EXTRA_PAYLOAD", '{"ports": ""}', "without 'ports'"),
    ("RUNPOD_EXTRA_PAYLOAD", '{"gpu_type_id": "x"}', "that is RUNPOD_GPU_TYPE_ID"),
    ("RUNPOD_EXTRA_PAYLOAD", '{"minMemory": 1}', "there is no 'minMemory'"),
    ("POD_ENV_lower", "sesame", "'lower' is none"),
    ("POD_ENV_AUTH_TOKEN", "sesame", "gives every pod itself"),
    ("POD_ENV_GATEWAY_POD_TOKEN", "sesame", "gives every pod itself"),
    ("POD_ENV_A", 'ses"ame', "which A is not"),
    ("POD_ENV_A", "ses\\ame", "which A is not"),
    ("POD_ENV_A", "ses\name", "which A is not"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(
    tmp_path: Path, name: str, value: str, allowed: str
) -> None:
    (fault,) = faults_of({**DUTY, name: value}, tmp_path)
    assert fault.startswith(f"{name}={value!r} (environment): allowed is ")
    assert allowed in fault


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG_SECRETS)
def test_a_wrong_secret_is_named_but_not_shown(tmp_path: Path, name: str, value: str, allowed: str) -> None:
    (fault,) = faults_of({**DUTY, name: value}, tmp_path)
    shown = "POD_ENV_<NAME>" if name.startswith("POD_ENV_") else name
    assert fault.startswith(f"{shown} (its value is not shown)")
    assert allowed in fault
    assert value not in fault
    assert "sesame" not in fault


def test_too_many_pod_variables_are_a_fault(tmp_path: Path) -> None:
    (fault,) = faults_of({**DUTY, **{f"POD_ENV_X{number}": "1" for number in range(41)}}, tmp_path)
    assert "at most 40 variables" in fault


def test_a_duty_server_is_needed(tmp_path: Path) -> None:
    assert faults_of({}, tmp_path) == [
        "DUTY_POD_URL is not set: allowed is http(s) addresses, comma separated"
    ]


def test_all_faults_are_told_together(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RUNPOD_GPU_COUNT=many\n=x=\n")
    (tmp_path / "g.yaml").write_text("startup_poll_s: [1, 2]\nroutes: 5\n")
    environ = {
        "RUNPOD_CONFIG_PATH": "g.yaml",
        "PORT": "x",
        "RUNPOD_API_KEY": "key",
        "RUNPOD_TELEMETRY_IDLE_S": "5",
        "GATEWAY_STATE_DIR": "\0",
        "GATEWAY_DATABASE_URL": "x",
    }
    faults = faults_of(environ, tmp_path)
    begins = {re.split(r"[= :]", fault)[0] for fault in faults}
    assert begins >= {
        ".env",
        "routes",
        "DUTY_POD_URL",
        "GATEWAY_STATE_DIR",
        "GATEWAY_DATABASE_URL",
        "PORT",
        "RUNPOD_GPU_COUNT",
        "RUNPOD_STARTUP_POLL_S",
        "RUNPOD_TEMPLATE_ID",
        "RUNPOD_GPU_TYPE_ID",
        "RUNPOD_TELEMETRY_POLL_S",
    }
    assert "RUNPOD_GPU_COUNT='many' (.env): allowed is a whole number from 1 to 32" in faults
    assert (
        "RUNPOD_STARTUP_POLL_S='1,2' (g.yaml): allowed is a number above 0, up to 604800 (a week)" in faults
    )


def test_a_password_in_an_address_is_not_shown(tmp_path: Path) -> None:
    (fault,) = faults_of({"DUTY_POD_URL": "http://user:ses/a@me@host"}, tmp_path)
    assert "ame" not in fault.partition(": allowed is")[0].replace("name", "")
    assert "'http://***@host'" in fault


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    (fault,) = faults_of({**DUTY, "PORT": "9" * 10_000}, tmp_path)
    assert len(fault) < 300


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"RUNPOD_TEMPLATE_ID": ""}, "RUNPOD_TEMPLATE_ID and RUNPOD_IMAGE_NAME are not set"),
        ({"RUNPOD_GPU_TYPE_ID": ""}, "RUNPOD_GPU_TYPE_ID is not set"),
        ({"RUNPOD_TELEMETRY_POLL_S": "600"}, "RUNPOD_TELEMETRY_POLL_S=600: allowed is less than"),
        ({"RUNPOD_STARTUP_POLL_S": "400"}, "RUNPOD_STARTUP_POLL_S=400: allowed is less than"),
    ],
)
def test_what_is_wrong_only_together_is_a_fault(tmp_path: Path, environ: dict[str, str], named: str) -> None:
    (fault,) = faults_of({**PROVISIONING, **environ}, tmp_path)
    assert fault.startswith(named)


def test_a_wrong_value_is_not_blamed_twice(tmp_path: Path) -> None:
    assert len(faults_of({**PROVISIONING, "RUNPOD_TEMPLATE_ID": 'x"'}, tmp_path)) == 1
    assert len(faults_of({**DUTY, "RUNPOD_TELEMETRY_IDLE_S": "-1"}, tmp_path)) == 1


@pytest.mark.parametrize(
    "environ",
    [
        {"RUNPOD_TEMPLATE_ID": "", "RUNPOD_IMAGE_NAME": "registry.example.com/owner/name:tag@sha256:ab"},
        {"RUNPOD_TEMPLATE_ID": "", "RUNPOD_EXTRA_PAYLOAD": '{"template_id": "tpl2"}'},
        {},
    ],
    ids=["image", "template in the payload", "template"],
)
def test_with_a_key_a_template_or_an_image_is_enough(tmp_path: Path, environ: dict[str, str]) -> None:
    assert load({**PROVISIONING, **environ}, root=tmp_path).can_provision


SECRETS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=8, max_size=60)


@given(SECRETS.filter(lambda text: bool(text.strip())))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_secret_ever_leaks_into_a_fault_or_a_repr(tmp_path: Path, secret: str) -> None:
    secret = f"sesame{secret}sesame"
    names = ["RUNPOD_API_KEY", "GATEWAY_SECRET", "GATEWAY_DATABASE_URL", "RUNPOD_EXTRA_PAYLOAD", "POD_ENV_A"]
    for name in names:
        environ = {**DUTY, name: secret, "RUNPOD_APIKEY": secret, "GATEWAY_SECRETS": secret}
        try:
            told = repr(load(environ, root=tmp_path))
        except SettingsError as error:
            told = repr(error) + str(error) + repr(error.__cause__) + repr(error.__context__)
        assert "sesame" not in told
        with pytest.raises(SettingsError) as caught:
            load({**environ, "PORT": "x"}, root=tmp_path)
        assert "sesame" not in str(caught.value)


# --- values ---


@pytest.mark.parametrize("value", ["1", "true", "YES", "On", " on "])
def test_what_counts_as_yes(read: Load, value: str) -> None:
    assert read(USE_CLIENT_IP=value).identity.use_client_ip is True


@pytest.mark.parametrize("value", ["0", "false", "NO", "Off"])
def test_what_counts_as_no(read: Load, value: str) -> None:
    assert read(USE_CLIENT_ID=value).identity.use_client_id is False


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("sqlite:///data/x.db", "sqlite+aiosqlite:///{root}/data/x.db"),
        ("sqlite+aiosqlite:////var/x.db", "sqlite+aiosqlite:////var/x.db"),
        ("postgres://u:p@h/n", "postgresql+asyncpg://u:p@h/n"),
        ("postgresql://h/n", "postgresql+asyncpg://h/n"),
        ("postgresql+asyncpg://h/n", "postgresql+asyncpg://h/n"),
    ],
)
def test_a_database_gets_its_driver_and_its_place(
    read: Load, tmp_path: Path, given_url: str, url: str
) -> None:
    found = read(GATEWAY_DATABASE_URL=given_url).database_url.get_secret_value()
    assert found == url.format(root=tmp_path)


def test_the_database_is_in_the_state_folder_wherever_that_is(read: Load, tmp_path: Path) -> None:
    assert (
        read(GATEWAY_STATE_DIR="/var/lib/gw")
        .database_url.get_secret_value()
        .endswith("///var/lib/gw/gateway.db")
    )
    settings = read(GATEWAY_STATE_DIR="state")
    assert settings.state_dir == tmp_path / "state"
    assert settings.database_url.get_secret_value() == f"sqlite+aiosqlite:///{tmp_path}/state/gateway.db"


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("outputs", "file://{root}/outputs"),
        ("/var/outputs", "file:///var/outputs"),
        ("file:///var/outputs", "file:///var/outputs"),
        ("s3://bucket/folder", "s3://bucket/folder"),
        ("memory://x", "memory://x"),
        ("", "file://{root}/.gateway/vault"),
    ],
)
def test_the_vault_is_a_folder_or_any_address(read: Load, tmp_path: Path, given_url: str, url: str) -> None:
    assert read(VAULT_URL=given_url).vault_url == url.format(root=tmp_path)


def test_a_home_folder_is_filled_in(read: Load) -> None:
    assert read(GATEWAY_STATE_DIR="~/gw").state_dir == Path.home() / "gw"


def test_lists_keep_their_order_and_lose_repetitions(read: Load) -> None:
    settings = read(RUNPOD_REGION=" B-2, A-1,, B-2 ", TRUSTED_PROXIES="10.1.2.3/8, ::1")
    assert settings.pod.regions == ("B-2", "A-1")
    assert settings.access.trusted_proxies == ("10.0.0.0/8", "::1/128")


PLACES = """
runpod_candidates:
  - {gpu: NVIDIA L40S, region: [A-1, B-2], max_usd: 0.9}
  - {gpu: NVIDIA A40, cloud: community}
profiles:
  big: {candidates: [{gpu: NVIDIA H100 PCIe}], users: [alice], teams: [film]}
  small: {candidates: [{gpu: NVIDIA A30, region: A-1}], on_request: true}
gateway_teams:
  film: [bob]
"""


def test_places_and_profiles_are_lists_in_the_file_and_json_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(PLACES)
    in_file = load(DUTY | {"RUNPOD_CONFIG_PATH": "g.yaml"}, root=tmp_path).pod.buying
    told = yaml.safe_load(PLACES)
    names = {
        "RUNPOD_CANDIDATES": "runpod_candidates",
        "RUNPOD_PROFILES": "profiles",
        "GATEWAY_TEAMS": "gateway_teams",
    }
    environ = {name: json.dumps(told[key]) for name, key in names.items()}
    assert load(DUTY | environ, root=tmp_path / "empty").pod.buying == in_file
    assert in_file == Profiles(
        (
            Candidate("NVIDIA L40S", "SECURE", "A-1", 0.9),
            Candidate("NVIDIA L40S", "SECURE", "B-2", 0.9),
            Candidate("NVIDIA A40", "COMMUNITY"),
        ),
        (
            Profile(
                "big",
                (Candidate("NVIDIA H100 PCIe", "SECURE"),),
                users=frozenset({"alice"}),
                teams=frozenset({"film"}),
            ),
            Profile("small", (Candidate("NVIDIA A30", "SECURE", "A-1"),), on_request=True),
        ),
        {"film": frozenset({"bob"})},
    )


def test_places_take_the_place_of_gpu_types_and_regions(read: Load) -> None:
    gpu_types = {"RUNPOD_GPU_TYPE_ID": "NVIDIA A40,NVIDIA A30", "RUNPOD_REGION": "A-1,B-2"}
    assert [(one.gpu_type, one.data_center) for one in read(**gpu_types).pod.buying.usual] == [
        ("NVIDIA A40", "A-1"),
        ("NVIDIA A40", "B-2"),
        ("NVIDIA A30", "A-1"),
        ("NVIDIA A30", "B-2"),
    ]
    places = {"RUNPOD_CANDIDATES": '[{"gpu": "NVIDIA L40S"}]'}
    assert read(**gpu_types, **places).pod.buying.usual == (Candidate("NVIDIA L40S", "SECURE"),)


def test_a_profile_for_a_team_that_there_is_not_is_a_fault(tmp_path: Path) -> None:
    profiles = '{"big": {"candidates": [{"gpu": "A40"}], "teams": ["film"]}}'
    [fault] = faults_of(DUTY | {"RUNPOD_PROFILES": profiles}, tmp_path)
    assert fault == "RUNPOD_PROFILES: profile big is for the team film, which GATEWAY_TEAMS does not have"


def test_hours_and_budgets_of_teams_are_read_from_one_line(read: Load, tmp_path: Path) -> None:
    limits = read(
        RUNPOD_HOURS="mon-fri 08:00-20:00, sat 10:00-14:00",
        RUNPOD_HOURS_ZONE="Europe/Berlin",
        BUDGET_TEAM_DAILY_USD="film=50, games=2.5",
        GATEWAY_TEAMS='{"film": ["alice"], "games": []}',
    ).limits
    assert limits.budget_team_daily_usd == {"film": 50, "games": 2.5}
    assert len(limits.allowed_hours.windows) == 2
    assert str(limits.allowed_hours.zone) == "Europe/Berlin"
    assert read().limits.allowed_hours.windows == ()
    [fault] = faults_of(DUTY | {"BUDGET_TEAM_DAILY_USD": "film=50"}, tmp_path)
    assert fault == "BUDGET_TEAM_DAILY_USD is for the team film, which GATEWAY_TEAMS does not have"


def test_public_addresses_are_allowed_hosts(read: Load) -> None:
    settings = read(GATEWAY_PUBLIC_URL="https://Comfy.example.com/, http://other.example:8080")
    assert settings.listen.allowed_hosts.origins == {"https://comfy.example.com", "http://other.example:8080"}
    assert settings.listen.is_public_https


@pytest.mark.parametrize(("value", "expected"), [("5", 5), ("auto", "auto"), ("AUTO", "auto")])
def test_kept_megabytes_are_a_number_or_auto(read: Load, value: str, expected: object) -> None:
    assert read(GATEWAY_KEEP_MB=value).limits.keep_mb == expected


def test_addresses_of_listening_and_of_the_api_are_brought_into_form(read: Load) -> None:
    settings = read(GATEWAY_HOST="[::]", RUNPOD_API_BASE="http://127.0.0.1:9/sim/")
    assert settings.listen.host == "::"
    assert settings.runpod.api_base == "http://127.0.0.1:9/sim"
    assert read(GATEWAY_HOST="gpu-box").listen.host == "gpu-box"


def test_secrets_are_kept_out_of_sight_and_given_on_request(read: Load) -> None:
    settings = read(GATEWAY_SECRET="s" * 32, POD_ENV_A="sesame")
    assert settings.secret is not None
    assert settings.secret.get_secret_value() == "s" * 32
    assert "sesame" not in repr(settings)
    assert "ssss" not in repr(settings)


def test_the_tree_is_frozen(read: Load) -> None:
    settings = read()
    with pytest.raises(pydantic.ValidationError):
        settings.listen.port = 1
    payload: Any = settings.pod.extra_payload
    with pytest.raises(TypeError):
        payload["name"] = "x"


def test_every_tag_that_is_allowed_makes_pod_names() -> None:
    PodNames("a" * MAX_POD_NAME_TAG_LENGTH, Keys(bytes(32)))


def test_the_keywords_of_the_payload_are_those_of_the_sdk() -> None:
    assert frozenset(inspect.signature(runpod.create_pod).parameters) == CREATE_POD_KEYWORDS


# --- warnings ---


def test_unknown_names_are_warned_about_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_HOSTS=x\n")
    (tmp_path / "g.yaml").write_text("gpu_cont: 1\nruntime: 2\nrunpod_config_path: x\n")
    settings = load(
        {**DUTY, "RUNPOD_CONFIG_PATH": "g.yaml", "RUNPOD_GPU_TYPE": "x", "RUNPOD_QQQQ": "1"}, root=tmp_path
    )
    assert settings.warnings == (
        "RUNPOD_GPU_TYPE (environment) is no setting; did you mean RUNPOD_GPU_TYPE_ID?",
        "RUNPOD_QQQQ (environment) is no setting",
        "GATEWAY_HOSTS (.env) is no setting; did you mean GATEWAY_HOST?",
        "gpu_cont (g.yaml) is no setting; did you mean runpod_gpu_count?",
        "runpod_config_path (g.yaml) has no effect in that file",
        "runtime (g.yaml) is no setting",
    )


def test_what_runpod_sets_in_its_pods_and_names_of_others_are_not_warned_about(read: Load) -> None:
    names = [
        "RUNPOD_POD_ID",
        "RUNPOD_DC_ID",
        "RUNPOD_TCP_PORT_22",
        "RUNPOD_API_BASE_URL",
        "GATEWAY_POD_TOKEN",
        "PATH",
    ]
    assert read(**dict.fromkeys(names, "x")).warnings == ()


@pytest.mark.parametrize(
    ("auth_mode", "isolation", "expected"),
    [
        ("none", "", Visibility(Isolation.ACTIONS)),
        ("none", "Full", Visibility(Isolation.FULL)),
        ("none", "off", Visibility(Isolation.OFF)),
        ("tokens", "", Visibility(Isolation.FULL, has_sign_in=True)),
        ("tokens", "actions", Visibility(Isolation.ACTIONS, has_sign_in=True)),
    ],
)
def test_how_far_people_are_kept_apart_follows_from_their_sign_in_unless_it_is_said(
    read: Load, auth_mode: str, isolation: str, expected: Visibility
) -> None:
    settings = read(AUTH_MODE=auth_mode, ISOLATION=isolation)
    assert settings.access.visibility == expected


def test_the_shared_folder_and_homes_can_be_chosen(read: Load) -> None:
    folders = {
        name: read(ISOLATION_SHARED_INPUTS=name).access.shared_inputs for name in ("none", "a/b", "3dx")
    }
    assert folders == {"none": "", "a/b": "a/b", "3dx": "3dx"}
    assert [read(ISOLATION=name).access.has_homes for name in ("full", "actions")] == [True, False]
    assert not read(ISOLATION="full", ISOLATION_OWN_HOMES="0").access.has_homes


def test_the_operators_routes_can_be_chosen(read: Load) -> None:
    routes = read(ISOLATION_OPERATOR_ROUTES="/free, /my-node/*").access.operator_routes
    assert "/my-node/reset" in routes
    assert "/manager/reboot" not in routes


def test_trusting_everybody_is_warned_about(read: Load) -> None:
    (warning,) = read(TRUSTED_PROXIES="10.0.0.1, 0.0.0.0/0").warnings
    assert "every client may say who and where it is" in warning


# --- sign-in ---


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"AUTH_MODE": "basic"}, "AUTH_BASIC is not set"),
        ({"AUTH_MODE": "proxy"}, "TRUSTED_PROXIES is not set"),
        ({"TLS_CERT": "c.pem"}, "TLS_KEY is not set: TLS_CERT needs it"),
        ({"TLS_KEY": "k.pem"}, "TLS_CERT is not set: TLS_KEY needs it"),
    ],
)
def test_what_a_way_in_needs_is_asked_for(tmp_path: Path, given: dict[str, str], fault: str) -> None:
    (found,) = faults_of({**DUTY, **given}, tmp_path)
    assert found.startswith(fault)


@pytest.mark.parametrize("value", ["any", "alice:PASSWORD", "@", "ldapx:PASSWORD", "/etc/htpasswd"])
def test_a_source_of_passwords_that_is_none_is_refused_unshown(tmp_path: Path, value: str) -> None:
    (fault,) = faults_of({**DUTY, "AUTH_BASIC": value}, tmp_path)
    assert fault.startswith("AUTH_BASIC (its value is not shown)")
    assert "PASSWORD" not in fault


def test_a_way_in_is_read(read: Load, tmp_path: Path) -> None:
    settings = read(
        AUTH_MODE="Basic",
        AUTH_BASIC="@folder/htpasswd",
        AUTH_OPERATORS="olga, otto smith",
        TLS_CERT="cert.pem",
        TLS_KEY="/key.pem",
        GATEWAY_HOST="0.0.0.0",
    )
    assert settings.access.auth_mode is AuthMode.BASIC
    assert settings.access.basic is not None
    assert settings.access.basic.get_secret_value() == f"@{tmp_path}/folder/htpasswd"
    assert settings.access.operators == ("olga", "otto smith")
    assert settings.access.users_file == tmp_path / "config/users.yaml"
    assert settings.listen.tls_cert == tmp_path / "cert.pem"
    assert settings.listen.tls_key == Path("/key.pem")
    assert settings.listen.is_public_https
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("given", "is_warned"),
    [
        ({"AUTH_MODE": "tokens", "GATEWAY_HOST": "0.0.0.0"}, True),
        (
            {"AUTH_MODE": "tokens", "GATEWAY_HOST": "0.0.0.0", "GATEWAY_PUBLIC_URL": "https://a.example"},
            False,
        ),
        ({"AUTH_MODE": "tokens", "GATEWAY_HOST": "::1"}, False),
        ({"AUTH_MODE": "tokens"}, False),
        ({"GATEWAY_HOST": "0.0.0.0"}, False),
    ],
)
def test_tokens_in_plain_text_are_warned_about(read: Load, given: dict[str, str], is_warned: bool) -> None:
    assert any("without HTTPS" in warning for warning in read(**given).warnings) is is_warned


def test_the_file_of_users_is_found_whatever_else_is_wrong(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AUTH_USERS_FILE=people.yaml\nPORT=x\n")
    assert load_users_file({"GATEWAY_STATE_DIR": "a\0b"}, root=tmp_path) == tmp_path / "people.yaml"
    assert load_users_file({"AUTH_USERS_FILE": "~/p.yaml"}, root=tmp_path) == Path.home() / "p.yaml"
    with pytest.raises(SettingsError, match="AUTH_USERS_FILE"):
        load_users_file({"AUTH_USERS_FILE": "a\0b"}, root=tmp_path)


def test_a_payload_that_competes_with_a_setting_is_warned_about(read: Load) -> None:
    (warning,) = read(RUNPOD_EXTRA_PAYLOAD='{"cloud_type": "ALL", "min_download": 5}').warnings
    assert warning.startswith("RUNPOD_EXTRA_PAYLOAD sets cloud_type, which RUNPOD_CLOUD_TYPE is for")


# --- the files that explain them ---


def test_the_page_of_all_settings_is_current() -> None:
    assert (PROJECT / "docs/configuration.md").read_text(encoding="utf-8") == markdown()


def test_every_setting_is_described() -> None:
    for name, variable in variables().items():
        assert variable.field.description, name
        assert "`" + name + "`" in markdown()


EXAMPLE = (PROJECT / "config/.env.example").read_text(encoding="utf-8")
EXAMPLE_LINES = dict(
    line.removeprefix("# ").split("=", 1)
    for line in EXAMPLE.splitlines()
    if re.match(r"(# )?[A-Z][A-Z0-9_]+=", line)
)


def test_the_example_names_every_setting_with_its_default_and_explains_it() -> None:
    pods = {name for name in EXAMPLE_LINES if name.startswith("POD_ENV_")}
    assert pods
    assert EXAMPLE_LINES.keys() - pods == variables().keys() - {"POD_ENV_<NAME>"}
    for name in (
        EXAMPLE_LINES.keys()
        - pods
        - {"DUTY_POD_URL", "RUNPOD_EXTRA_PAYLOAD", "GATEWAY_DATABASE_URL", "VAULT_URL"}
    ):
        default = default_text(variables()[name])
        assert EXAMPLE_LINES[name] == ("" if default == "\N{EN DASH}" else default), name


def test_the_example_changes_no_default_whether_commented_out_or_not(tmp_path: Path) -> None:
    plain = load(DUTY, root=tmp_path)
    (tmp_path / ".env").write_text(EXAMPLE, encoding="utf-8")
    assert load({}, root=tmp_path) == plain
    active = re.sub(r"(?m)^# (?!POD_ENV_|RUNPOD_CONFIG_PATH)([A-Z][A-Z0-9_]+=)", r"\1", EXAMPLE)
    assert len(dotenv_values(stream=StringIO(active))) == len(EXAMPLE_LINES) - 2
    (tmp_path / ".env").write_text(active, encoding="utf-8")
    assert load({}, root=tmp_path) == plain


def test_the_example_file_changes_nothing_and_works_when_uncommented(tmp_path: Path) -> None:
    text = (PROJECT / "config/gateway.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) is None
    active = "\n".join(
        line.removeprefix("# ") for line in text.splitlines() if re.match(r"# (\s+.*|[a-z_]+:.*)$", line)
    )
    (tmp_path / "config").mkdir()
    (tmp_path / "config/gateway.yaml").write_text(active, encoding="utf-8")
    settings = load({"RUNPOD_API_KEY": "key"}, root=tmp_path)
    assert settings.warnings == ()
    assert settings.routes.patterns[0] == ("/my_node/presets*", RequestClass.HOME)
    assert settings.pod.env["HF_TOKEN"].get_secret_value() == "{{ RUNPOD_SECRET_hf_token }}"
    assert settings.pod.gpu_type_ids == ("NVIDIA GeForce RTX 4090", "NVIDIA L40S")


# --- the command ---


def run(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, with nothing else in the environment."""
    return subprocess.run(
        [sys.executable, "-m", "comfy_gateway.settings", *arguments],
        env={"PYTHONPATH": str(PROJECT / "addons"), "PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_check_exits_with_2_and_one_line_for_each_fault() -> None:
    done = run({**DUTY, "PORT": "x", "AUTH_MODE": "magic"}, "--check")
    assert done.returncode == 2
    assert [line.partition("=")[0] for line in done.stderr.splitlines()] == ["PORT", "AUTH_MODE"]
    assert done.stdout == ""


def test_the_check_exits_with_0_and_prints_warnings() -> None:
    done = run({**DUTY, "RUNPOD_GPU_TYPE": "x"}, "--check")
    assert done.returncode == 0
    assert (
        "warning: RUNPOD_GPU_TYPE (environment) is no setting; did you mean RUNPOD_GPU_TYPE_ID?"
        in done.stderr
    )


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--markdown"]) == 0
    assert capsys.readouterr().out == markdown()


def test_the_check_reads_the_environment_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUTY_POD_URL", "x")
    assert main(["--check"]) == 2
    assert "DUTY_POD_URL='x' (environment)" in capsys.readouterr().err
    monkeypatch.setenv("DUTY_POD_URL", "http://x")
    monkeypatch.setenv("TRUSTED_PROXIES", "0.0.0.0/0")
    assert main(["--check"]) == 0
    assert "warning: TRUSTED_PROXIES" in capsys.readouterr().err


def test_weights_are_read_and_checked() -> None:
    assert parse.weights("alice=2, b=c=0.5") == {"alice": 2.0, "b=c": 0.5}
    assert parse.weights({"alice": 3}) == {"alice": 3.0}
    for wrong in ("alice", "alice=x", "alice=0", "=2", "alice=nan", "alice=101"):
        with pytest.raises(ValueError, match=r"0\.01 to 100"):
            parse.weights(wrong)
