"""The settings tree: what can be set, its unit, its default and what it means.

The text below a field is its description in docs/configuration.md. ``Var`` names the variable; the table, the
example files, the check for misspelt names and the fault messages all come from here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.fields import FieldInfo

from comfy_gateway.core.money import hours
from comfy_gateway.core.money.hours import Hours
from comfy_gateway.core.money.profiles import Profile, Profiles
from comfy_gateway.core.people.hosts import AllowedHosts
from comfy_gateway.core.people.identity import IdentityRules
from comfy_gateway.core.people.sign_in import AuthMode
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.pods.pod_address import PodAddresses
from comfy_gateway.core.ports import Candidate
from comfy_gateway.core.prompts.visibility import Isolation, Visibility
from comfy_gateway.core.requests.classify import NO_RULES, RouteRules
from comfy_gateway.core.requests.operator_routes import OperatorRoutes
from comfy_gateway.core.requests.upstream import Upstream
from comfy_gateway.settings import parse, places

WEEK_S: Final = 7 * 24 * 3600
YEAR_S: Final = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Var:
    """The name under which a field is set."""

    name: str
    allowed: str = ""
    """In words, where type and bounds do not say it."""
    is_secret: bool = False
    """The value is never shown, not even a wrong one."""
    is_ended_by_blank: bool = False
    """A blank value means "none", and weaker sources are not asked. Otherwise blank means "not set here"."""
    default_text: str = ""
    """Where the default is made when the settings are loaded."""


class Group(BaseModel):
    """Part of the tree."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


Flag = Annotated[bool, BeforeValidator(parse.flag)]
Seconds = Annotated[float, Field(gt=0, le=WEEK_S)]
Port = Annotated[int, Field(ge=1, le=65535)]
PodUrlTemplate = Annotated[str, BeforeValidator(parse.pod_url_template)]


class Listen(Group):
    """Where the gateway listens"""

    port: Annotated[int, Var("PORT"), Field(ge=0, le=65535)] = 8000
    """Port of the gateway; 0 takes a free one."""
    host: Annotated[
        str, Var("GATEWAY_HOST", "an IP address or a name"), BeforeValidator(parse.listen_host)
    ] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all networks of this machine."""
    public_urls: Annotated[
        tuple[Upstream, ...],
        Var("GATEWAY_PUBLIC_URL", "http(s) addresses without a path"),
        BeforeValidator(parse.public_origins),
    ] = ()
    """Under which addresses browsers reach the gateway besides loopback names, comma separated."""
    tls_cert: Annotated[
        Path | None, Var("TLS_CERT", "a PEM file", is_ended_by_blank=True), BeforeValidator(parse.file)
    ] = None
    """Certificate, with the ones between it and the CA's behind it: browsers then come by HTTPS. Read again when it
    is renewed."""
    tls_key: Annotated[
        Path | None, Var("TLS_KEY", "a PEM file", is_ended_by_blank=True), BeforeValidator(parse.file)
    ] = None
    """Its private key, without a password; may be the same file."""

    @property
    def allowed_hosts(self) -> AllowedHosts:
        """Hosts whose pages may talk to the gateway."""
        return AllowedHosts.of(self.public_urls)

    @property
    def is_public_https(self) -> bool:
        """Whether browsers come by HTTPS, so that cookies are marked Secure."""
        return self.tls_cert is not None or any(origin.scheme == "https" for origin in self.public_urls)


class Identity(Group):
    """Who a request is from"""

    header: Annotated[
        str, Var("USER_ID_HEADER", "the name of a header"), BeforeValidator(parse.header_name)
    ] = "X-Comfy-User"
    """Header that names the user."""
    query_key: Annotated[
        str, Var("USER_ID_QUERY_KEY", "letters, digits, '_', '.', '-'"), BeforeValidator(parse.query_key)
    ] = "user_id"
    """Query key that names the user."""
    cookie: Annotated[
        str | None, Var("USER_ID_COOKIE", "the name of a cookie"), BeforeValidator(parse.cookie_name)
    ] = None
    """Cookie of your own (say, of a portal in front) that names the user; none unless set."""
    is_required: Annotated[Flag, Var("REQUIRE_USER_ID")] = True
    """Answer 400 to a request that nobody can be found for; 0 lets anonymous requests use the duty server."""
    use_client_id: Annotated[Flag, Var("USE_CLIENT_ID")] = True
    """Let ComfyUI's client_id stand for a user where nothing better is given."""
    use_client_ip: Annotated[Flag, Var("USE_CLIENT_IP")] = False
    """Let the IP address stand for a user as the last resort; merges everybody behind one NAT."""

    @property
    def rules(self) -> IdentityRules:
        """The same for the core."""
        return IdentityRules(
            header=self.header,
            query_key=self.query_key,
            cookie=self.cookie,
            use_client_id=self.use_client_id,
            use_client_ip=self.use_client_ip,
            is_required=self.is_required,
        )


class Access(Group):
    """Sign-in and separation"""

    auth_mode: Annotated[
        AuthMode,
        Var("AUTH_MODE", "none, tokens, basic or proxy"),
        BeforeValidator(parse.auth_mode),
    ] = AuthMode.NONE
    """How people sign in (docs/signin.md). With none a user is whoever they say they are."""
    trusted_proxies: Annotated[
        tuple[str, ...], Var("TRUSTED_PROXIES", "addresses or networks"), BeforeValidator(parse.networks)
    ] = ()
    """Proxies in front whose X-Forwarded-* are believed, and with AUTH_MODE=proxy their USER_ID_HEADER, comma
    separated."""
    users_file: Annotated[
        Path,
        Var("AUTH_USERS_FILE", "a YAML file", default_text="config/users.yaml"),
        BeforeValidator(parse.file),
    ]
    """Who may sign in with AUTH_MODE=tokens; written by ./run_gateway.sh user."""
    basic: Annotated[
        SecretStr | None,
        Var(
            "AUTH_BASIC",
            "@ and an htpasswd file (bcrypt), or mitmproxy's ldap[s]:host[:port]:dn_auth:password:dn_subtree",
            is_secret=True,
            is_ended_by_blank=True,
        ),
        BeforeValidator(parse.basic_source),
    ] = None
    """Where the passwords of AUTH_MODE=basic are, as mitmproxy's own option proxyauth has it."""
    operators: Annotated[
        tuple[str, ...], Var("AUTH_OPERATORS", "names of users"), BeforeValidator(parse.user_names)
    ] = ()
    """People who are operators once they have signed in, comma separated; those of AUTH_USERS_FILE besides."""
    session_s: Annotated[float, Var("AUTH_SESSION_S"), Field(ge=60, le=YEAR_S)] = WEEK_S
    """How long a browser stays signed in without being used. With AUTH_MODE=basic an hour at most."""
    max_failures: Annotated[int, Var("AUTH_MAX_FAILURES"), Field(ge=1, le=1_000)] = 10
    """So many failed sign-ins of one address, or for one name, within the window are heard out; then 429."""
    failure_window_s: Annotated[int, Var("AUTH_FAILURE_WINDOW_S"), Field(ge=1, le=86_400)] = 60
    """Length of that window."""
    isolation: Annotated[
        Isolation | None, Var("ISOLATION", "off, actions or full"), BeforeValidator(parse.isolation)
    ] = None
    """How far users are kept apart on the duty servers (docs/isolation.md). Unless it is set: full where people sign
    in, else actions."""
    chosen_operator_routes: Annotated[
        OperatorRoutes | None,
        Var("ISOLATION_OPERATOR_ROUTES", "paths that begin with a slash, * for anything, comma separated"),
        BeforeValidator(parse.operator_routes),
    ] = None
    """Routes of the duty servers that answer operators alone unless ISOLATION=off; it takes the place of the usual list
    in docs/isolation.md."""

    shared_inputs: Annotated[
        str,
        Var("ISOLATION_SHARED_INPUTS", "a folder's path such as shared, or none"),
        BeforeValidator(parse.inner_folder),
    ] = "shared"
    """With ISOLATION=full: the folder below the input folder of the duty servers whose files everybody reads and
    operators alone write."""

    own_homes: Annotated[Flag, Var("ISOLATION_OWN_HOMES")] = True
    """With ISOLATION=full: 1 gives everybody saved workflows and settings of their own, which begin empty; 0 leaves
    those of the duty server to all."""

    @property
    def has_homes(self) -> bool:
        """Whether everybody has a home of their own."""
        return self.own_homes and self.visibility.hides_others

    @property
    def operator_routes(self) -> OperatorRoutes:
        """Those, or the usual ones."""
        return self.chosen_operator_routes or OperatorRoutes.usual()

    @property
    def visibility(self) -> Visibility:
        """Who sees and touches what."""
        has_sign_in = self.auth_mode is not AuthMode.NONE
        usual = Isolation.FULL if has_sign_in else Isolation.ACTIONS
        return Visibility(self.isolation or usual, has_sign_in)


class Health(Group):
    """How a ComfyUI server is probed"""

    path: Annotated[str, Var("HEALTH_PATH", "a path"), BeforeValidator(parse.url_path)] = "/queue"
    """Path that answers 2xx with JSON when ComfyUI is ready."""
    timeout_s: Annotated[Seconds, Var("HEALTH_TIMEOUT_S")] = 10
    """How long one probe may take."""


class RunPod(Group):
    """The RunPod account"""

    provider: Annotated[
        Literal["runpod"],
        Var("PROVIDER", "runpod (local is not available in this version)"),
        BeforeValidator(parse.provider),
    ] = "runpod"
    """Where private pods come from."""
    api: Annotated[
        Literal["sdk", "v2"],
        Var("RUNPOD_API", "sdk or v2"),
        BeforeValidator(parse.runpod_api),
    ] = "sdk"
    """How RunPod is spoken to: sdk by its Python package (GraphQL, which RunPod is to end in early 2027), v2 by its
    REST API."""
    api_key: Annotated[
        SecretStr | None,
        Var("RUNPOD_API_KEY", "printable ASCII without spaces", is_secret=True, is_ended_by_blank=True),
        BeforeValidator(parse.api_key),
    ] = None
    """Key of the account. Blank disables private pods: the gateway then only fronts the duty servers."""
    api_base: Annotated[
        str, Var("RUNPOD_API_BASE", "an http(s) address"), BeforeValidator(parse.base_url)
    ] = "https://api.runpod.io"
    """Where the API is."""
    request_timeout_s: Annotated[Seconds, Var("RUNPOD_REQUEST_TIMEOUT_S")] = 30
    """How long we wait for one call; past it its outcome is unknown, not failed."""
    reconcile_s: Annotated[float, Var("RUNPOD_RECONCILE_S"), Field(ge=1, le=60)] = 15
    """How often the account's list of pods is compared with what we believe. RunPod limits calls: 10 to 15 is good."""
    pod_name_tag: Annotated[
        str,
        Var("RUNPOD_POD_NAME_TAG", "words of a-z and 0-9 joined by single hyphens"),
        BeforeValidator(parse.pod_name_tag),
    ] = "comfy-gw"
    """Pods are named <tag>-<user>-<attempt>; pods of another shape or tag are never touched. Change it only while
    no pod lives: the old ones would be nobody's."""
    terminate_on_exit: Annotated[Flag, Var("RUNPOD_TERMINATE_ON_EXIT")] = False
    """End our pods when the gateway ends; otherwise they live on and are found again."""


class Pod(Group):
    """What a private pod is"""

    template_id: Annotated[
        str | None, Var("RUNPOD_TEMPLATE_ID", "an id of RunPod"), BeforeValidator(parse.runpod_id)
    ] = None
    """Template of the pod; this or the image is needed for private pods."""
    image_name: Annotated[
        str | None, Var("RUNPOD_IMAGE_NAME", "a container image"), BeforeValidator(parse.image_name)
    ] = None
    """Image of the pod; this or the template is needed for private pods."""
    gpu_type_ids: Annotated[
        tuple[str, ...],
        Var("RUNPOD_GPU_TYPE_ID", "RunPod's ids of GPU types"),
        BeforeValidator(parse.gpu_types),
    ] = ()
    """GPU types, tried in this order, comma separated; needed for private pods."""
    gpu_count: Annotated[int, Var("RUNPOD_GPU_COUNT"), Field(ge=1, le=32)] = 1
    """GPUs of one pod."""
    volume_gb: Annotated[int | None, Var("RUNPOD_VOLUME_GB"), Field(ge=0, le=100_000)] = None
    """Size of the pod's own volume; it is lost with the pod."""
    container_disk_gb: Annotated[int, Var("RUNPOD_CONTAINER_DISK_GB"), Field(ge=1, le=100_000)] = 50
    """Size of the container's disk."""
    network_volume_id: Annotated[
        str | None, Var("RUNPOD_NETWORK_VOLUME_ID", "an id of RunPod"), BeforeValidator(parse.runpod_id)
    ] = None
    """Network volume to attach; it survives the pod and ties it to one data centre."""
    cloud_type: Annotated[
        Literal["SECURE", "COMMUNITY", "ALL"],
        Var("RUNPOD_CLOUD_TYPE", "SECURE, COMMUNITY or ALL"),
        BeforeValidator(parse.cloud_type),
    ] = "SECURE"
    """Kind of cloud; ALL and COMMUNITY put people's work on machines of strangers."""
    regions: Annotated[
        tuple[str, ...], Var("RUNPOD_REGION", "ids of data centres"), BeforeValidator(parse.data_centres)
    ] = ()
    """Data centres, tried in this order, comma separated; any when not set."""
    max_usd_per_hour: Annotated[float, Var("RUNPOD_MAX_USD_PER_HOUR"), Field(ge=0, le=1_000)] = 0
    """No pod is bought that costs more in an hour, wherever. 0: no ceiling but the budgets."""
    candidates: Annotated[
        tuple[Candidate, ...],
        Var("RUNPOD_CANDIDATES", places.CANDIDATES_ALLOWED),
        BeforeValidator(places.candidates),
    ] = ()
    """Where to buy, in order, with a price ceiling for each place; takes the place of RUNPOD_GPU_TYPE_ID,
    RUNPOD_CLOUD_TYPE and RUNPOD_REGION. A list in the file, JSON elsewhere."""
    profiles: Annotated[
        tuple[Profile, ...],
        Var("RUNPOD_PROFILES", places.PROFILES_ALLOWED),
        BeforeValidator(places.profiles),
    ] = ()
    """Other places for some users, for teams, or for prompts that ask by extra_data.runpod_profile (docs/runpod.md)."""
    teams: Annotated[
        Mapping[str, frozenset[str]],
        Var("GATEWAY_TEAMS", places.TEAMS_ALLOWED),
        BeforeValidator(places.teams),
    ] = Field(default_factory=dict)
    """Users by team, for RUNPOD_PROFILES."""
    extra_payload: Annotated[
        Mapping[str, Any],
        Var("RUNPOD_EXTRA_PAYLOAD", "a JSON object of keywords of runpod.create_pod", is_secret=True),
        BeforeValidator(parse.extra_payload),
    ] = Field(default_factory=lambda: parse.extra_payload({}))
    """Further keywords for the SDK's create_pod; not name, env, ports, gpu_type_id and instance_id."""
    env: Annotated[
        Mapping[str, SecretStr],
        Var("POD_ENV_<NAME>", "one line without double quotes and backslashes", is_secret=True),
        BeforeValidator(parse.pod_env),
    ] = Field(default_factory=dict)
    """Each POD_ENV_X=value gives every pod X=value; {{ RUNPOD_SECRET_x }} is left for RunPod to fill in."""
    min_agent: Annotated[
        str | None, Var("POD_MIN_AGENT", "a version such as 0.1.0"), BeforeValidator(parse.version)
    ] = None
    """Pods found after a restart whose agent is older than this are drained; say it after building a new image."""
    allow_open: Annotated[Flag, Var("POD_ALLOW_OPEN")] = False
    """Use pods whose ComfyUI answers anybody, without the gateway's token. Only for images without our front door."""
    proxy_port: Annotated[Port, Var("RUNPOD_PROXY_PORT")] = 8188
    """Port of the pod on which ComfyUI (in our image: its front door) answers."""
    proxy_template: Annotated[
        PodUrlTemplate, Var("RUNPOD_PROXY_TEMPLATE", "an http(s) address with {pod_id}")
    ] = "https://{pod_id}-{port}.proxy.runpod.net"
    """Address of a pod; a path prefix is allowed."""

    @property
    def team_keys(self) -> Mapping[str, frozenset[str]]:
        """Keys of users by team."""
        return {
            team: frozenset(UserId(IdKind.NAMED, name).key for name in names)
            for team, names in self.teams.items()
        }

    @property
    def buying(self) -> Profiles:
        """Where whose pods are bought."""
        regions: tuple[str | None, ...] = self.regions or (None,)
        usual = self.candidates or tuple(
            Candidate(gpu_type, self.cloud_type, region)
            for gpu_type in self.gpu_type_ids
            for region in regions
        )
        return Profiles(usual, self.profiles, self.teams)


class Boot(Group):
    """Starting a pod"""

    timeout_s: Annotated[Seconds, Var("RUNPOD_STARTUP_TIMEOUT_S")] = 360
    """A pod that is not ready after so long is ended."""
    most_s: Annotated[Seconds, Var("RUNPOD_STARTUP_MAX_S")] = 3600
    """While model_sync visibly fetches bytes, or the container has only just come up, a pod may take longer than the
    timeout, up to this."""
    no_machine_s: Annotated[float, Var("RUNPOD_NO_MACHINE_S"), Field(ge=0, le=WEEK_S)] = 180
    """A pod that RunPod has put on no machine for so long is ended. 0: it is waited for like any other."""
    waits_for_models: Annotated[Flag, Var("RUNPOD_WAIT_FOR_MODELS")] = False
    """Use a pod only when its model_sync has ended; otherwise people move as soon as ComfyUI answers."""
    poll_s: Annotated[Seconds, Var("RUNPOD_STARTUP_POLL_S")] = 5
    """Time between two probes of a starting pod."""
    agent_wait_s: Annotated[Seconds, Var("RUNPOD_AGENT_WAIT_S")] = 30
    """How long a pod whose ComfyUI answers waits for its agent; then it is used without telemetry."""
    drain_timeout_s: Annotated[Seconds, Var("RUNPOD_DRAIN_TIMEOUT_S")] = 120
    """How long a pod that is to end waits for its last prompts and transfers."""
    backoff_s: Annotated[Seconds, Var("RUNPOD_FAILURE_BACKOFF_S")] = 30
    """After a failed start the user waits so long for the next try."""
    max_starting: Annotated[int, Var("RUNPOD_MAX_STARTING"), Field(ge=0, le=10_000)] = 10
    """Pods that start at one time; users beyond it stay on duty until their next prompts. 0: no bound."""
    max_attempts: Annotated[int, Var("RUNPOD_MAX_ATTEMPTS"), Field(ge=0, le=1_000)] = 10
    """Places (GPU type and data centre) that one start asks for a machine. 0: all."""
    refusal_memory_s: Annotated[float, Var("RUNPOD_REFUSAL_MEMORY_S"), Field(ge=0, le=WEEK_S)] = 30
    """A place that has just refused is asked by nobody for so long."""
    distrust_s: Annotated[float, Var("RUNPOD_BAD_PLACE_S"), Field(ge=0, le=WEEK_S)] = 900
    """A place in which a pod has failed to start is asked last for so long."""
    breaker_failures: Annotated[int, Var("RUNPOD_BREAKER_FAILURES"), Field(ge=0, le=1_000)] = 5
    """After so many failed starts in a row, of all users, nothing is bought for a while. 0: whatever fails."""
    breaker_open_s: Annotated[Seconds, Var("RUNPOD_BREAKER_OPEN_S")] = 300
    """Length of that while; then one start is tried."""


class Burst(Group):
    """When a user gets a private pod"""

    threshold_count: Annotated[int, Var("RUNPOD_PROMPT_THRESHOLD_COUNT"), Field(ge=0, le=1_000_000)] = 5
    """So many accepted prompts within the window start a pod; 0: a user's first prompt or socket does."""
    window_s: Annotated[Seconds, Var("RUNPOD_PROMPT_THRESHOLD_WINDOW_S")] = 60
    """Length of the rolling window."""
    wait_s: Annotated[float, Var("RUNPOD_BURST_WAIT_S"), Field(ge=0, le=WEEK_S)] = 0
    """A prompt that will wait longer than this on the shared server, by prediction, starts a pod. 0: no wait does."""
    for_missing: Annotated[Flag, Var("RUNPOD_BURST_FOR_MISSING")] = False
    """1: a prompt that the shared server refuses for want of a node or model that the last pod had starts a pod."""


class Own(Group):
    """What users may do about their own pod"""

    may_promote: Annotated[Flag, Var("ME_MAY_PROMOTE")] = False
    """Let users ask for a private pod at once, without sending prompts first; caps and budgets hold all the same."""
    keep_times: Annotated[int, Var("ME_KEEP_TIMES"), Field(ge=0, le=1_000)] = 2
    """How often a user may keep an idle pod for another 30 minutes; 0: never. RUNPOD_MAX_LIFETIME_S ends it all the
    same."""


class Telemetry(Group):
    """When a pod counts as idle"""

    template: Annotated[
        PodUrlTemplate, Var("RUNPOD_TELEMETRY_TEMPLATE", "an http(s) address with {pod_id}")
    ] = "https://{pod_id}-{port}.proxy.runpod.net"
    """Address of the agent in a pod; one that already has a path is used as it is."""
    port: Annotated[Port, Var("RUNPOD_TELEMETRY_PORT")] = 8000
    """Port of the agent in the pod."""
    path: Annotated[str, Var("RUNPOD_TELEMETRY_PATH", "a path"), BeforeValidator(parse.url_path)] = "/metrics"
    """Path of one sample."""
    poll_s: Annotated[Seconds, Var("RUNPOD_TELEMETRY_POLL_S")] = 60
    """Time between two samples; shorter than the idle window."""
    idle_s: Annotated[Seconds, Var("RUNPOD_TELEMETRY_IDLE_S")] = 600
    """A pod whose GPU was at or below the threshold for so long, with nothing queued, is ended."""
    gpu_threshold_percent: Annotated[float, Var("RUNPOD_TELEMETRY_GPU_THRESHOLD"), Field(ge=0, le=100)] = 0
    """Utilisation up to which a GPU counts as idle."""
    blind_idle_s: Annotated[Seconds, Var("RUNPOD_IDLE_TIMEOUT_S")] = 900
    """A pod whose telemetry was never seen is ended after so long without a prompt or a transfer."""


class Vault(Group):
    """Keeping what pods make"""

    url: Annotated[
        SecretStr | None,
        Var(
            "VAULT_URL",
            "a folder, or an address that fsspec knows",
            is_secret=True,
            default_text="the folder vault in GATEWAY_STATE_DIR",
        ),
        BeforeValidator(parse.vault_url),
    ] = None
    """Where outputs of private pods are kept: a folder, or s3://bucket/folder and the like (docs/vault.md)."""
    max_gb: Annotated[float, Var("VAULT_MAX_GB"), Field(ge=0, le=1_000_000)] = 100
    """Beyond so much the oldest kept files are removed; 0: no bound."""
    max_days: Annotated[float, Var("VAULT_MAX_DAYS"), Field(ge=0, le=36_500)] = 0
    """Kept files older than this are removed; 0: no bound."""
    deadline_s: Annotated[Seconds, Var("VAULT_DEADLINE_S")] = 300
    """How long the end of a pod waits until all of its files are safe."""


class Limits(Group):
    """Caps and patience"""

    fair_turns: Annotated[Flag, Var("FAIR_TURNS")] = True
    """Let users take turns on the shared servers (docs/fairness.md); 0: first come, first served."""
    fair_weights: Annotated[
        Mapping[str, float],
        Var("FAIR_WEIGHTS", "names of users with numbers from 0.01 to 100, such as alice=2"),
        BeforeValidator(parse.weights),
    ] = Field(default_factory=dict)
    """Users who have more turns than others, or fewer, comma separated; 1 for everybody else."""
    max_queued_per_user: Annotated[int, Var("MAX_QUEUED_PER_USER"), Field(ge=0, le=1_000_000)] = 200
    """Prompts that one user may have waiting and running on the shared servers; beyond it 429. 0: no bound."""
    max_sockets_per_user: Annotated[int, Var("GATEWAY_MAX_SOCKETS_PER_USER"), Field(ge=0, le=100_000)] = 100
    """WebSockets that one user may have open at one time (those who say no name: one address); beyond it 429. 0: no
    bound."""
    socket_messages_per_s: Annotated[float, Var("GATEWAY_SOCKET_MESSAGES_PER_S"), Field(ge=0, le=100_000)] = (
        50
    )
    """Messages that one WebSocket may send in a second; ten seconds' worth may come at once, beyond it the socket is
    closed with 1008. 0: no bound."""
    max_active_sessions: Annotated[int, Var("RUNPOD_MAX_ACTIVE_SESSIONS"), Field(ge=0, le=10_000)] = 10
    """Private pods at one time; users beyond it stay on duty."""
    budget_hourly_usd: Annotated[float, Var("BUDGET_HOURLY_USD"), Field(ge=0, le=1_000_000)] = 20
    """What all private pods together may cost in an hour; users beyond it stay on duty."""
    budget_daily_usd: Annotated[float, Var("BUDGET_DAILY_USD"), Field(ge=0, le=1_000_000)] = 0
    """What all private pods may cost in a day of UTC; then they are drained and users stay on duty. 0: no bound."""
    budget_user_daily_usd: Annotated[float, Var("BUDGET_USER_DAILY_USD"), Field(ge=0, le=1_000_000)] = 0
    """The same for the pods of one user."""
    budget_team_daily_usd: Annotated[
        Mapping[str, float],
        Var("BUDGET_TEAM_DAILY_USD", "teams with dollars above 0, such as film=50,games=20"),
        BeforeValidator(parse.dollars_by_team),
    ] = Field(default_factory=dict)
    """The same for the pods of all users of a team of GATEWAY_TEAMS."""
    hours: Annotated[
        str | None,
        Var("RUNPOD_HOURS", "days and times such as mon-fri 08:00-20:00, sat 22:00-04:00"),
        BeforeValidator(parse.allowed_hours),
    ] = None
    """When private pods are allowed; out of these hours they are drained and none is bought. Always when not set."""
    hours_zone: Annotated[
        str,
        Var("RUNPOD_HOURS_ZONE", "UTC or a time zone such as Europe/Berlin"),
        BeforeValidator(parse.time_zone),
    ] = "UTC"
    """Time zone of those hours."""
    min_lease_s: Annotated[float, Var("RUNPOD_MIN_LEASE_S"), Field(ge=0, le=WEEK_S)] = 0
    """Idleness alone ends no pod that was ordered less than this ago; budgets reserve as much. 0: no lease."""
    max_lifetime_s: Annotated[int, Var("RUNPOD_MAX_LIFETIME_S"), Field(ge=0, le=31_536_000)] = 0
    """A private pod is drained after so long, however busy it is. 0: no bound."""
    alarm_urls: Annotated[
        tuple[SecretStr, ...],
        Var("GATEWAY_ALARM_URLS", "addresses that apprise knows, comma separated", is_secret=True),
        BeforeValidator(parse.alarm_urls),
    ] = ()
    """Where alarms go besides log and metrics: mail, chat or webhooks as apprise writes them (docs/money.md)."""
    upstream_timeout_s: Annotated[Seconds, Var("GATEWAY_UPSTREAM_TIMEOUT_S")] = 300
    """A server that sends no first byte of its answer for so long is given up with 504."""
    connect_timeout_s: Annotated[Seconds, Var("GATEWAY_CONNECT_TIMEOUT_S")] = 10
    """A server that takes no connection for so long is given up with 502."""
    keep_mb: Annotated[
        Annotated[int, Field(ge=0, le=100_000)] | Literal["auto"],
        Var("GATEWAY_KEEP_MB", "a whole number from 0 to 100000, or auto"),
        BeforeValidator(parse.keep_mb),
    ] = "auto"
    """Megabytes of bodies that mitmweb and recordings keep per flow; auto: some there, none in mitmdump."""
    watch_mb: Annotated[int, Var("GATEWAY_WATCH_MB"), Field(ge=1, le=1_000_000)] = 512
    """Megabytes of flows that mitmweb and mitmproxy keep to be looked at; beyond it the oldest go."""
    fast_path: Annotated[Flag, Var("FAST_PATH")] = True
    """Replace the slowest parts of mitmproxy by quicker ones that do the same; 0 leaves it as it is."""
    interface_cache: Annotated[Flag, Var("INTERFACE_CACHE")] = True
    """Keep the shared server's front end in memory, compressed, so that a reloaded page asks for next to nothing."""
    interface_cache_mb: Annotated[int, Var("INTERFACE_CACHE_MB"), Field(ge=1, le=100_000)] = 256
    """Megabytes of memory for that; beyond it the files that were not asked for the longest go."""
    ui_badge: Annotated[Flag, Var("UI_BADGE")] = True
    """Show a badge inside ComfyUI that says which GPU its user is on (docs/badge.md); off leaves the page as it is."""
    max_upload_mb: Annotated[int, Var("GATEWAY_MAX_UPLOAD_MB"), Field(ge=1, le=1_000_000)] = 4096
    """Megabytes that one upload of an input file may have; ComfyUI's own --max-upload-size bounds it as well."""
    inputs_max_gb: Annotated[int, Var("GATEWAY_INPUTS_MAX_GB"), Field(ge=1, le=1_000_000)] = 20
    """Gigabytes of uploaded files that are kept in the state folder; beyond it the longest unused go."""
    inputs_max_days: Annotated[int, Var("GATEWAY_INPUTS_MAX_DAYS"), Field(ge=1, le=36_500)] = 30
    """Days after which an uploaded file that no prompt has used is no longer kept."""

    @property
    def allowed_hours(self) -> Hours:
        """When private pods are allowed."""
        return Hours(hours.parse(self.hours or ""), ZoneInfo(self.hours_zone), self.hours or "")


class Settings(Group):
    """General"""

    duty: Annotated[
        tuple[Upstream, ...],
        Var("DUTY_POD_URL", "http(s) addresses, comma separated"),
        BeforeValidator(parse.upstreams),
        Field(min_length=1),
    ]
    """Shared ComfyUI; several make a pool. The first is home: settings, userdata and page come from it."""
    state_dir: Annotated[
        Path,
        Var("GATEWAY_STATE_DIR", "a folder", default_text=".gateway"),
        BeforeValidator(parse.folder),
    ]
    """Database, kept files and secrets (mode 0700); a relative path is below the project's root."""
    database_url: Annotated[
        SecretStr,
        Var(
            "GATEWAY_DATABASE_URL",
            "sqlite+aiosqlite:/// or postgresql+asyncpg://",
            is_secret=True,
            default_text="SQLite in the state folder",
        ),
        BeforeValidator(parse.database_url),
    ]
    """Where sessions survive a restart."""
    secret: Annotated[
        SecretStr | None,
        Var("GATEWAY_SECRET", f"at least {parse.MIN_SECRET_LENGTH} characters", is_secret=True),
        BeforeValidator(parse.secret),
    ] = None
    """Master secret, the same for several gateways; without it one is made and kept in the state folder."""
    config_path: Annotated[
        Path,
        Var("RUNPOD_CONFIG_PATH", "a YAML or JSON file", default_text="config/gateway.yaml"),
        BeforeValidator(parse.folder),
    ]
    """File with further settings: the names of this table in lower case, with or without runpod_."""

    listen: Listen = Field(default_factory=Listen)
    identity: Identity = Field(default_factory=Identity)
    access: Access
    health: Health = Field(default_factory=Health)
    runpod: RunPod = Field(default_factory=RunPod)
    pod: Pod = Field(default_factory=Pod)
    boot: Boot = Field(default_factory=Boot)
    burst: Burst = Field(default_factory=Burst)
    own: Own = Field(default_factory=Own)
    telemetry: Telemetry = Field(default_factory=Telemetry)
    vault: Vault = Field(default_factory=Vault)
    limits: Limits = Field(default_factory=Limits)
    routes: RouteRules = NO_RULES
    warnings: tuple[str, ...] = ()

    @property
    def home(self) -> Upstream:
        """The first duty server."""
        return self.duty[0]

    @property
    def pod_addresses(self) -> PodAddresses:
        """Where a pod's ComfyUI and agent are reached."""
        return PodAddresses(
            proxy_template=self.pod.proxy_template,
            proxy_port=self.pod.proxy_port,
            telemetry_template=self.telemetry.template,
            telemetry_port=self.telemetry.port,
            telemetry_path=self.telemetry.path,
        )

    @property
    def vault_url(self) -> str:
        """Where outputs of pods are kept; may hold credentials."""
        return (
            f"file://{self.state_dir / 'vault'}"
            if self.vault.url is None
            else self.vault.url.get_secret_value()
        )

    @property
    def can_provision(self) -> bool:
        """Whether private pods can be had at all."""
        return self.runpod.api_key is not None


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting as the tree declares it."""

    var: Var
    path: tuple[str, ...]
    """Where it is in the tree: ``("runpod", "api_key")``."""
    field: FieldInfo
    group: str
    """Title of its group."""

    @property
    def name(self) -> str:
        """As it is set: ``RUNPOD_API_KEY``."""
        return self.var.name


@cache
def variables() -> Mapping[str, Variable]:
    """All settings by name, in the order of the tree."""
    return {variable.name: variable for variable in _walk(Settings, ())}


def _walk(group: type[Group], path: tuple[str, ...]) -> Iterator[Variable]:
    inner = []
    for name, field in group.model_fields.items():
        var = next((mark for mark in field.metadata if isinstance(mark, Var)), None)
        if var is not None:
            yield Variable(var, (*path, name), field, group.__doc__ or "")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            inner.append((field.annotation, (*path, name)))
    for annotation, inner_path in inner:
        yield from _walk(annotation, inner_path)
