"""From the text of one variable to its value. Every function raises ValueError that says what is allowed."""

import ipaddress
import re
import string
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from packaging.version import InvalidVersion, Version
from pydantic import SecretStr, ValidationInfo

from comfy_gateway.core.money import hours
from comfy_gateway.core.people.cookie import COOKIE_NAME
from comfy_gateway.core.people.users import MAX_NAME_LENGTH, is_valid_name
from comfy_gateway.core.requests.operator_routes import OperatorRoutes
from comfy_gateway.core.requests.upstream import Upstream

_HOST: Final = re.compile(r"[A-Za-z0-9._:-]+")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_QUERY_KEY: Final = re.compile(r"[A-Za-z0-9_.-]+")
_INNER_FOLDER: Final = re.compile(
    r"(?!(?:3d|clipspace|carried)(?:/|\Z))(?!user-)[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*"
)
_POD_NAME_TAG: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PATH: Final = re.compile(r"/[!-~]*")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_ENV_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]*")

# RunPod's SDK pastes values into its queries unescaped: nothing may pass that could end a string there.
_RUNPOD_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DATA_CENTRE: Final = re.compile(r"[A-Za-z0-9-]{1,40}")
_GPU_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+/()-]{0,99}")
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,511}")

MAX_POD_NAME_TAG_LENGTH: Final = 40
MIN_SECRET_LENGTH: Final = 32

_HEADERS_WITH_A_MEANING: Final = frozenset(
    {
        "host",
        "cookie",
        "connection",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "origin",
        "te",
        "trailer",
    }
)

CREATE_POD_KEYWORDS: Final = frozenset(
    {
        "name",
        "image_name",
        "gpu_type_id",
        "cloud_type",
        "support_public_ip",
        "start_ssh",
        "data_center_id",
        "country_code",
        "gpu_count",
        "volume_in_gb",
        "container_disk_in_gb",
        "min_vcpu_count",
        "min_memory_in_gb",
        "docker_args",
        "ports",
        "volume_mount_path",
        "env",
        "template_id",
        "network_volume_id",
        "allowed_cuda_versions",
        "min_download",
        "min_upload",
        "instance_id",
    }
)
"""Parameters of ``runpod.create_pod`` (1.10.1). Written out because importing the SDK takes two seconds."""

KEYWORDS_WITH_A_SETTING: Final = {
    "image_name": "RUNPOD_IMAGE_NAME",
    "template_id": "RUNPOD_TEMPLATE_ID",
    "gpu_count": "RUNPOD_GPU_COUNT",
    "cloud_type": "RUNPOD_CLOUD_TYPE",
    "data_center_id": "RUNPOD_REGION",
    "volume_in_gb": "RUNPOD_VOLUME_GB",
    "container_disk_in_gb": "RUNPOD_CONTAINER_DISK_GB",
    "network_volume_id": "RUNPOD_NETWORK_VOLUME_ID",
}

_OWNED_KEYWORDS: Final = {
    "name": "the gateway knows its pods by their names",
    "env": "that is POD_ENV_<NAME>",
    "ports": "they follow from RUNPOD_PROXY_PORT and RUNPOD_TELEMETRY_PORT",
    "gpu_type_id": "that is RUNPOD_GPU_TYPE_ID",
    "instance_id": "it asks for a machine without a GPU",
}

_OWNED_POD_ENV: Final = frozenset({"AUTH_TOKEN", "GATEWAY_POD_TOKEN"})
MAX_POD_ENV: Final = 40

_FLAGS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def flag(value: Any) -> bool:
    """``1``, ``true``, ``yes``, ``on`` and their opposites, in any case."""
    found = value if isinstance(value, bool) else _FLAGS.get(str(value).strip().lower())
    if found is None:
        raise ValueError("1, true, yes, on, 0, false, no or off")
    return found


def words(value: Any) -> tuple[str, ...]:
    """A comma separated text or a list; empty parts and repetitions are left out, the order is kept."""
    parts = value.split(",") if isinstance(value, str) else [str(part) for part in value]
    return tuple(dict.fromkeys(part for part in (part.strip() for part in parts) if part))


def upstreams(value: Any) -> tuple[Upstream, ...]:
    """ComfyUI servers. The first is home."""
    found = tuple(upstream(word) for word in words(value))
    if len(set(found)) != len(found):
        raise ValueError("different servers; one of these is named twice")
    return found


def upstream(text: str) -> Upstream:
    """One http:// or https:// address, a path prefix allowed."""
    try:
        found = Upstream.parse(text)
    except ValueError as error:
        raise ValueError(f"an http:// or https:// address, but this {error}") from None
    if not _HOST.fullmatch(found.host) or (found.prefix and not _PATH.fullmatch(found.prefix)):
        raise ValueError("an http:// or https:// address, but this has characters that no address has")
    return found


def public_origins(value: Any) -> tuple[Upstream, ...]:
    """Addresses under which browsers know the gateway: no path."""
    found = tuple(upstream(word) for word in words(value))
    if any(origin.prefix for origin in found):
        raise ValueError("http:// or https:// addresses without a path")
    return found


def base_url(value: str) -> str:
    """An http(s) address without a slash at its end."""
    found = upstream(value)
    return found.origin + found.prefix


def listen_host(value: str) -> str:
    """A name or an IP address without a port."""
    host = value.strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", host):
            raise ValueError("an IP address or a host name, without scheme and port") from None
        return host


def networks(value: Any) -> tuple[str, ...]:
    """IP addresses and CIDR networks in their normal form."""
    try:
        return tuple(str(ipaddress.ip_network(word, strict=False)) for word in words(value))
    except ValueError:
        raise ValueError("IP addresses or networks such as 10.0.0.0/8, comma separated") from None


def header_name(value: str) -> str:
    """A header that may name the user."""
    if not _TOKEN.fullmatch(value) or value.lower() in _HEADERS_WITH_A_MEANING:
        raise ValueError("the name of a header that has no other meaning in HTTP")
    return value


def query_key(value: str) -> str:
    """A query key that needs no percent-encoding."""
    if not _QUERY_KEY.fullmatch(value):
        raise ValueError("letters, digits, '_', '.' and '-'")
    return value


def cookie_name(value: str) -> str:
    """A cookie of the client's own."""
    if not _TOKEN.fullmatch(value) or value == COOKIE_NAME:
        raise ValueError(f"the name of a cookie other than {COOKIE_NAME}, which is the gateway's own")
    return value


def url_path(value: str) -> str:
    """A path (a query allowed) that begins with a slash."""
    if not _PATH.fullmatch(value):
        raise ValueError("a path that begins with '/', percent-encoded")
    return value


def inner_folder(value: str) -> str:
    """A folder below another, empty for ``none``."""
    if value.lower() == "none":
        return ""
    if not _INNER_FOLDER.fullmatch(value):
        raise ValueError(
            "letters, digits, '_', '-' and single slashes, such as shared/pipelines, but nothing in 3d, clipspace,"
            " carried or user-…; or none"
        )
    return value


def pod_name_tag(value: str) -> str:
    """The first part of every pod name of ours."""
    if not _POD_NAME_TAG.fullmatch(value) or len(value) > MAX_POD_NAME_TAG_LENGTH:
        raise ValueError(
            f"words of a-z and 0-9 joined by single hyphens, at most {MAX_POD_NAME_TAG_LENGTH} characters"
        )
    return value


def runpod_id(value: str) -> str:
    """An id of RunPod: a template's or a network volume's."""
    if not _RUNPOD_ID.fullmatch(value):
        raise ValueError("an id of at most 64 letters, digits, '_' and '-'")
    return value


def data_centres(value: Any) -> tuple[str, ...]:
    """RunPod's ids of data centres, in order, such as ``EU-RO-1``."""
    found = words(value)
    if not all(_DATA_CENTRE.fullmatch(word) for word in found):
        raise ValueError("ids of data centres such as EU-RO-1, comma separated")
    return found


def gpu_types(value: Any) -> tuple[str, ...]:
    """RunPod's ids of GPU types, in order, such as ``NVIDIA GeForce RTX 4090``."""
    found = words(value)
    if not all(_GPU_TYPE.fullmatch(word) for word in found):
        raise ValueError("ids of GPU types such as NVIDIA GeForce RTX 4090, comma separated")
    return found


def image_name(value: str) -> str:
    """A container image reference."""
    if not _IMAGE.fullmatch(value):
        raise ValueError("a container image such as registry/owner/name:tag")
    return value


def cloud_type(value: str) -> str:
    """RunPod's kind of cloud."""
    found = value.strip().upper()
    if found not in {"SECURE", "COMMUNITY", "ALL"}:
        raise ValueError("SECURE, COMMUNITY or ALL")
    return found


def pod_url_template(value: str) -> str:
    """An address with ``{pod_id}`` and, where wanted, ``{port}``."""
    allowed = "an http:// or https:// address with {pod_id} and, where wanted, {port}"
    try:
        fields = [field for field in string.Formatter().parse(value) if field[1] is not None]
    except ValueError:
        raise ValueError(f"{allowed}; a brace is not closed") from None
    if any(name not in {"pod_id", "port"} or spec or conversion for _, name, spec, conversion in fields):
        raise ValueError(f"{allowed}; no other field and no format")
    if not any(name == "pod_id" for _, name, _, _ in fields):
        raise ValueError(f"{allowed}; {{pod_id}} is missing")
    try:
        upstream(value.format(pod_id="pod", port=1))
    except ValueError as error:
        raise ValueError(f"{allowed}; filled in it must be {error}") from None
    return value


def extra_payload(value: Any) -> Mapping[str, Any]:
    """A JSON object of keywords for ``runpod.create_pod``."""
    payload = value
    if isinstance(value, str):
        try:
            payload = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"a JSON object; this is no JSON at character {error.pos}") from None
    if not isinstance(payload, Mapping):
        raise ValueError('a JSON object such as {"min_memory_in_gb": 32}')
    for keyword in payload:
        if keyword in _OWNED_KEYWORDS:
            raise ValueError(f"a JSON object without {keyword!r}: {_OWNED_KEYWORDS[keyword]}")
        if keyword not in CREATE_POD_KEYWORDS:
            known = ", ".join(sorted(CREATE_POD_KEYWORDS - _OWNED_KEYWORDS.keys()))
            raise ValueError(f"a JSON object of the keywords {known}; there is no {keyword!r}")
    return MappingProxyType(dict(payload))


def pod_env(value: Mapping[str, Any]) -> Mapping[str, str]:
    """Further environment variables of a pod. Values stay as they are, references to RunPod secrets too."""
    for name in value:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"names of A-Z, 0-9 and '_'; {name!r} is none")
        if name in _OWNED_POD_ENV:
            raise ValueError(f"names but {name}, which the gateway gives every pod itself")
        text = value[name]
        if not isinstance(text, str) or not text.isprintable() or '"' in text or "\\" in text:
            raise ValueError(
                f"text on one line without double quotes and backslashes, which {name} is not:"
                f" put it into a RunPod secret and set {{{{ RUNPOD_SECRET_<name> }}}}"
            )
    if len(value) > MAX_POD_ENV:
        raise ValueError(f"at most {MAX_POD_ENV} variables, because RunPod allows 50 in all")
    return dict(value)


def api_key(value: str) -> str:
    """Printable ASCII without spaces: it becomes a header."""
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("printable ASCII characters without spaces")
    return value


def secret(value: str) -> str:
    """The master secret."""
    if len(value.encode("utf-8", "surrogatepass")) < MIN_SECRET_LENGTH:
        raise ValueError(f"at least {MIN_SECRET_LENGTH} characters")
    return value


def database_url(value: str, info: ValidationInfo) -> str:
    """SQLite in a file, or PostgreSQL; the plain names of both get their asynchronous driver.

    A relative SQLite path (three slashes) is below the project root.
    """
    allowed = "sqlite+aiosqlite:///folder/file.db or postgresql+asyncpg://user:password@host/name"
    scheme, separator, rest = value.partition("://")
    if not separator:
        raise ValueError(allowed)
    if scheme in {"sqlite", "sqlite+aiosqlite"}:
        file = rest.removeprefix("/")
        if not rest.startswith("/") or not file or ":memory:" in file:
            raise ValueError(f"{allowed}; a database in memory would forget pods that cost money")
        return f"sqlite+aiosqlite:///{_below_root(file, info)}"
    if scheme in {"postgres", "postgresql", "postgresql+asyncpg"} and rest.strip("/"):
        return f"postgresql+asyncpg://{rest}"
    raise ValueError(allowed)


def allowed_hours(value: str) -> str:
    """Days and times, see ``core.money.hours``."""
    text = ",".join(value) if isinstance(value, list) else value
    hours.parse(text)
    return text.strip()


def time_zone(value: str) -> str:
    """A zone that this machine knows."""
    try:
        return ZoneInfo(value.strip()).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("UTC or a time zone such as Europe/Berlin that this machine knows") from None


def dollars_by_team(value: Any) -> dict[str, float]:
    """``film=50,games=20``, or an object of them."""
    allowed = "names of teams with dollars above 0, such as film=50,games=20"
    pairs = (
        list(value.items())
        if isinstance(value, Mapping)
        else [word.rpartition("=")[::2] for word in words(value)]
    )
    try:
        found = {str(team).strip(): float(dollars) for team, dollars in pairs}
    except (TypeError, ValueError):
        raise ValueError(allowed) from None
    if not all(team and 0 < dollars <= 1_000_000 for team, dollars in found.items()):
        raise ValueError(allowed)
    return found


def alarm_urls(value: Any) -> tuple[SecretStr, ...]:
    """Addresses with a scheme; whether apprise knows them is seen at the start."""
    found = words(value.get_secret_value() if isinstance(value, SecretStr) else value)
    if not all("://" in word and word.isprintable() and " " not in word for word in found):
        raise ValueError(
            "addresses that apprise knows, such as mailto://user:password@example.com, comma separated"
        )
    return tuple(SecretStr(word) for word in found)


def vault_url(value: str, info: ValidationInfo) -> str:
    """Any address with a scheme, or a folder; a relative folder is below the project root. Folders become file://."""
    scheme, separator, rest = value.partition("://")
    if not separator:
        return f"file://{_below_root(value, info)}"
    if not _SCHEME.fullmatch(scheme) or not rest.strip("/") or not value.isprintable():
        raise ValueError("a folder, or an address that fsspec knows such as s3://bucket/folder")
    if scheme in {"file", "local"}:
        if not rest.startswith("/"):
            raise ValueError("a folder, or file:// with three slashes and an absolute path")
        return f"file://{rest}"
    return value


def folder(value: Any, info: ValidationInfo) -> Path:
    """An absolute path; a relative one is below the project root, and ``~`` is the home folder."""
    return _below_root(value, info)


def file(value: Any, info: ValidationInfo) -> Path:
    """As ``folder``, for a file."""
    return _below_root(value, info)


def _below_root(value: Any, info: ValidationInfo) -> Path:
    """The project root comes as ``root`` in the validation's context."""
    root: Path = (info.context or {})["root"]
    if "\0" in str(value):
        raise ValueError("a path")
    return root / Path(value).expanduser()


def keep_mb(value: Any) -> Any:
    """A whole number of megabytes, or ``auto``."""
    return value.strip().lower() if isinstance(value, str) else value


def available(value: str, built: tuple[str, ...], planned: tuple[str, ...]) -> str:
    """A choice of which this version has ``built`` only; says so when one is known but not there."""
    found = value.strip().lower()
    if found in planned:
        raise ValueError(f"{' or '.join(built)}; {found} is not available in this version")
    if found not in built:
        raise ValueError(" or ".join(built))
    return found


def auth_mode(value: str) -> str:
    """How people sign in."""
    return available(value, ("none", "tokens", "basic", "proxy"), ())


def basic_source(value: str, info: ValidationInfo) -> str:
    """An htpasswd file behind ``@`` (a relative one is below the project root), or an LDAP directory."""
    if value.startswith("@") and len(value) > 1:
        return f"@{_below_root(value[1:], info)}"
    if value.startswith(("ldap:", "ldaps:")):
        return value
    raise ValueError(
        "@ and an htpasswd file (bcrypt), or mitmproxy's ldap[s]:host[:port]:dn_auth:password:dn_subtree"
    )


def user_names(value: Any) -> tuple[str, ...]:
    """Names of users, which may hold spaces but, here, no commas."""
    found = words(value)
    if not all(is_valid_name(name) for name in found):
        raise ValueError(f"names of 1 to {MAX_NAME_LENGTH} printable ASCII characters, comma separated")
    return found


def weights(value: Any) -> dict[str, float]:
    """``alice=2,bob=0.5``, or an object of them. A name may hold ``=``: the last one counts."""
    allowed = "names of users with numbers from 0.01 to 100, such as alice=2,bob=0.5"
    pairs = (
        list(value.items())
        if isinstance(value, Mapping)
        else [word.rpartition("=")[::2] for word in words(value)]
    )
    found = {}
    for name, text in pairs:
        try:
            weight = float(text)
        except (TypeError, ValueError):
            raise ValueError(allowed) from None
        if not is_valid_name(str(name).strip()) or not 0.01 <= weight <= 100:
            raise ValueError(allowed)
        found[str(name).strip()] = weight
    return found


def provider(value: str) -> str:
    """Where private pods come from."""
    return available(value, ("runpod",), ("local",))


def runpod_api(value: str) -> str:
    """How RunPod is spoken to."""
    return available(value, ("sdk", "v2"), ())


def isolation(value: str) -> str:
    """How far users are kept apart on the duty server."""
    return available(value, ("off", "actions", "full"), ())


def operator_routes(value: Any) -> OperatorRoutes:
    """Patterns of paths that answer operators alone."""
    return value if isinstance(value, OperatorRoutes) else OperatorRoutes.parse(words(value))


def version(value: Any) -> str:
    """A version as PEP 440 writes it."""
    try:
        return str(Version(str(value)))
    except InvalidVersion:
        raise ValueError("a version such as 0.1.0") from None
