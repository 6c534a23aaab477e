"""The GraphQL schema, tied to the simulated cloud."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    OperationType,
    build_schema,
    get_operation_ast,
)
from graphql.execution.values import get_argument_values, get_variable_values

from simulators.runpod.catalog import GpuType, Stock
from simulators.runpod.cloud import RefusedError, RunPodSimulator
from simulators.runpod.deeds import Deed
from simulators.runpod.faults import CAPACITY_TEXTS, Call, Fault, Operation
from simulators.runpod.pods import PodOrder, SimPod

type Info = GraphQLResolveInfo[Any]

PROXY_PUBLIC_PORT = 60000
# from the range that is reserved for documentation
TCP_HOST = "203.0.113.7"

_OPERATION_OF: dict[str, Operation] = {
    "pod": "get",
    "gpuTypes": "gpu",
    "podFindAndDeployOnDemand": "create",
    "deployCpuPod": "create",
    "podStop": "stop",
    "podResume": "resume",
    "podTerminate": "terminate",
}


@dataclass
class Execution:
    """The context of one request: `faults` by the name that the field has in the answer."""

    cloud: RunPodSimulator
    faults: Mapping[str, Fault] = field(default_factory=dict)

    def deed(self, key: str) -> Deed:
        """What this field of the answer does."""
        return Deed(self.cloud, self.faults.get(key))


def calls_of(
    schema: GraphQLSchema, document: DocumentNode, variables: dict[str, Any], at_s: float
) -> list[Call]:
    """What the document asks for: one call for each field at its top (fragments there are not looked into).

    Raises GraphQLError for wrong arguments or variables.
    """
    operation = get_operation_ast(document)
    if operation is None:
        raise GraphQLError("Must provide exactly one operation.")
    values = get_variable_values(schema, operation.variable_definitions or (), variables)
    if isinstance(values, list):
        raise values[0]
    root = schema.mutation_type if operation.operation is OperationType.MUTATION else schema.query_type
    calls = []
    for node in operation.selection_set.selections:
        if root is None or not isinstance(node, FieldNode) or node.name.value not in root.fields:
            continue
        given = get_argument_values(root.fields[node.name.value], node, values).get("input") or {}
        calls.append(
            Call(
                operation=_operation(node),
                key=(node.alias or node.name).value,
                at_s=at_s,
                gpu=given.get("gpuTypeId") or (given.get("id") if node.name.value == "gpuTypes" else None),
                data_center=given.get("dataCenterId"),
                pod_id=given.get("podId"),
                name=given.get("name"),
            )
        )
    return calls


def _operation(node: FieldNode) -> Operation:
    if node.name.value != "myself":
        return _OPERATION_OF[node.name.value]
    selected = node.selection_set.selections if node.selection_set else ()
    asks_for_pods = any(isinstance(inner, FieldNode) and inner.name.value == "pods" for inner in selected)
    return "list" if asks_for_pods else "user"


def _resolve_myself(_root: object, info: Info) -> dict[str, Any] | None:
    deed = _deed(info)
    if deed.is_null:
        return None
    return {
        "id": "user_sim",
        "pubKey": "",
        "clientBalance": deed.cloud.balance_usd(),
        "networkVolumes": [
            {"id": volume.id, "name": volume.name, "size": volume.size_gb, "dataCenterId": volume.data_center}
            for volume in deed.cloud.network_volumes.values()
        ],
        "pods": lambda _info: _listed(deed),
    }


def _listed(deed: Deed) -> list[dict[str, Any]] | None:
    pods = deed.listed()
    return None if pods is None else [pod_view(deed.cloud, pod, deed.view_s) for pod in pods]


def _resolve_pod(_root: object, info: Info, input: dict[str, Any] | None = None) -> dict[str, Any] | None:
    deed = _deed(info)
    if deed.is_null or not input:
        return None
    pod = deed.shown(str(input.get("podId")))
    return None if pod is None else pod_view(deed.cloud, pod, deed.view_s)


def _resolve_gpu_types(
    _root: object,
    info: Info,
    input: dict[str, Any] | None = None,
) -> list[dict[str, Any]] | None:
    deed = _deed(info)
    if deed.is_null:
        return None
    wanted = None if not input else {input.get("id"), *(input.get("ids") or ())} - {None}
    return [
        gpu_view(gpu, deed.cloud.stock_of(gpu))
        for gpu in deed.cloud.gpu_types.values()
        if not wanted or gpu.id in wanted
    ]


def _resolve_create(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any] | None:
    deed = _deed(info)
    if deed.is_null:
        return None
    gpu: GpuType | None = None
    if info.field_name == "podFindAndDeployOnDemand":
        gpu = deed.cloud.gpu_types.get(str(input.get("gpuTypeId")))
        if gpu is None:
            raise GraphQLError(CAPACITY_TEXTS[0])
    with _refusals_told():
        return _view_now(deed, deed.create(_order(input, gpu)))


def _order(given: dict[str, Any], gpu: GpuType | None) -> PodOrder:
    return PodOrder(
        name=given.get("name") or "my pod",
        image=given.get("imageName") or "",
        template_id=given.get("templateId"),
        env={entry["key"]: entry.get("value") or "" for entry in given.get("env") or ()},
        ports=given.get("ports") or "",
        gpu=gpu,
        gpu_count=given.get("gpuCount") or 1,
        cloud_type=given.get("cloudType") or "SECURE",
        data_center=given.get("dataCenterId"),
        network_volume_id=given.get("networkVolumeId"),
        container_disk_gb=given.get("containerDiskInGb") or 10,
        volume_gb=given.get("volumeInGb") or 0,
        volume_mount_path=given.get("volumeMountPath") or "",
        docker_args=given.get("dockerArgs") or "",
    )


def _resolve_stop(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any] | None:
    deed, pod_id = _deed(info), input["podId"]
    if deed.is_null:
        return None
    with _refusals_told():
        pod = deed.stop(pod_id)
    return {"id": pod_id, "desiredStatus": "EXITED", "imageName": ""} if pod is None else _view_now(deed, pod)


def _resolve_resume(_root: object, info: Info, input: dict[str, Any]) -> dict[str, Any] | None:
    deed = _deed(info)
    if deed.is_null:
        return None
    with _refusals_told():
        return _view_now(deed, deed.resume(input["podId"]))


def _resolve_terminate(_root: object, info: Info, input: dict[str, Any]) -> None:
    deed = _deed(info)
    if not deed.is_null:
        with _refusals_told():
            deed.terminate(input["podId"])


def _view_now(deed: Deed, pod: SimPod) -> dict[str, Any]:
    return pod_view(deed.cloud, pod, deed.cloud.clock.monotonic())


@contextmanager
def _refusals_told() -> Iterator[None]:
    try:
        yield
    except RefusedError as refused:
        raise GraphQLError(str(refused)) from refused


def _deed(info: Info) -> Deed:
    run = info.context
    assert isinstance(run, Execution)
    return run.deed(str(info.path.key))


def pod_view(cloud: RunPodSimulator, pod: SimPod, at_s: float) -> dict[str, Any]:
    """The pod as the API shows it at that moment."""
    event = pod.shown_event(at_s) or pod.events[-1]
    order = pod.order
    return {
        "id": pod.id,
        "name": pod.name,
        "containerDiskInGb": order.container_disk_gb,
        "costPerHr": pod.usd_per_hour,
        "desiredStatus": {"exited": "EXITED", "terminated": "TERMINATED"}.get(event.what, "RUNNING"),
        "dockerArgs": order.docker_args,
        "dockerId": None,
        "env": [f"{name}={value}" for name, value in pod.env.items()],
        "gpuCount": order.gpu_count if pod.gpu else 0,
        "imageName": order.image,
        "lastStatusChange": event.status_change,
        "machineId": pod.machine_id,
        "memoryInGb": 64.0,
        "networkVolumeId": order.network_volume_id,
        "podType": "RESERVED",
        "port": None,
        "ports": order.ports,
        "templateId": order.template_id,
        # always 0, as on the real service
        "uptimeSeconds": 0,
        "vcpuCount": 16.0,
        "volumeInGb": float(order.volume_gb),
        "volumeMountPath": order.volume_mount_path,
        "machine": None
        if pod.unplaced
        else {
            "podHostId": f"{pod.id}-{pod.machine_id}",
            "gpuDisplayName": pod.gpu.display_name if pod.gpu else None,
            "gpuTypeId": pod.gpu.id if pod.gpu else None,
            "dataCenterId": pod.data_center,
        },
        "runtime": _runtime_view(cloud, pod, at_s),
    }


def _runtime_view(cloud: RunPodSimulator, pod: SimPod, at_s: float) -> dict[str, Any] | None:
    age_s = pod.shown_runtime_s(at_s)
    if age_s is None:
        return None
    ports = [_port_view(index, number, kind) for index, (number, kind) in enumerate(pod.declared_ports)]

    async def gpus(_info: Info) -> list[dict[str, Any]]:
        queue = await cloud.hosting.queue(pod) if pod.app_listens(cloud.clock.monotonic()) else None
        percent = pod.telemetry.gpu_percent(queue)
        count = pod.order.gpu_count if pod.gpu else 0
        return [
            {"id": f"GPU-{pod.id}-{index}", "gpuUtilPercent": percent, "memoryUtilPercent": 10.0}
            for index in range(count)
        ]

    return {
        "uptimeInSeconds": int(age_s - pod.delays.runtime_s),
        "ports": ports if age_s >= pod.delays.port_s else [],
        "gpus": gpus,
        "container": {"cpuPercent": 3.0, "memoryPercent": 6.0},
    }


def _port_view(index: int, number: int, kind: str) -> dict[str, Any]:
    public = kind == "tcp"
    return {
        "ip": TCP_HOST if public else "100.65.0.7",
        "isIpPublic": public,
        "privatePort": number,
        "publicPort": PROXY_PUBLIC_PORT + index,
        "type": kind,
    }


def gpu_view(gpu: GpuType, stock: Stock) -> dict[str, Any]:
    def lowest_price(_info: Info, input: dict[str, Any] | None = None) -> dict[str, Any]:
        count = (input or {}).get("gpuCount") or 1
        price = gpu.usd_per_hour("SECURE" if (input or {}).get("secureCloud") else "ALL")
        return {
            "minimumBidPrice": None,
            "uninterruptablePrice": None if price is None else price * count,
            "stockStatus": None if stock == "NONE" else stock.title(),
        }

    return {
        "id": gpu.id,
        "displayName": gpu.display_name,
        "manufacturer": "Nvidia",
        "memoryInGb": gpu.memory_gb,
        "maxGpuCount": 8,
        "secureCloud": gpu.secure_usd_per_hour is not None,
        "communityCloud": gpu.community_usd_per_hour is not None,
        "securePrice": gpu.secure_usd_per_hour,
        "communityPrice": gpu.community_usd_per_hour,
        "lowestPrice": lowest_price,
    }


def _resolvers() -> Iterator[tuple[str, str, Callable[..., Any]]]:
    yield "Query", "myself", _resolve_myself
    yield "Query", "pod", _resolve_pod
    yield "Query", "gpuTypes", _resolve_gpu_types
    yield "Mutation", "podFindAndDeployOnDemand", _resolve_create
    yield "Mutation", "deployCpuPod", _resolve_create
    yield "Mutation", "podStop", _resolve_stop
    yield "Mutation", "podResume", _resolve_resume
    yield "Mutation", "podTerminate", _resolve_terminate


def make_schema() -> GraphQLSchema:
    schema = build_schema(Path(__file__).with_name("schema.graphql").read_text(encoding="utf-8"))
    for type_name, field_name, resolve in _resolvers():
        root = schema.type_map[type_name]
        assert isinstance(root, GraphQLObjectType)
        root.fields[field_name].resolve = resolve
    return schema
