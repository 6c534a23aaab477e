"""`python -m simulators.runpod`: the simulated cloud alone, until SIGTERM or SIGINT."""

import argparse
import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from simulators.comfyui.options import add_installation, installation
from simulators.runpod import AccountChange, Delays, Fault, NetworkVolume, ProxyLimits, RunPodSimulator, serve


def parser() -> argparse.ArgumentParser:
    told = argparse.ArgumentParser(
        prog="python -m simulators.runpod",
        description="A stand-in for RunPod on loopback: /graphql, /v2, /proxy/{pod_id}/{port}/ and /_sim/.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    told.add_argument("--host", default="127.0.0.1")
    told.add_argument("--port", type=int, default=3100, help="0 takes a free one")
    told.add_argument("--api-key", default="sim-key", help="the key that API calls must bear")
    told.add_argument("--boot-s", type=float, default=10.0, help="seconds until a new pod's ComfyUI answers")
    told.add_argument("--create-s", type=float, default=0.2, help="seconds that a create call takes")
    told.add_argument("--list-lag-s", type=float, default=0.0, help="seconds until the list shows a new pod")
    told.add_argument(
        "--terminate-visible-s",
        type=float,
        default=0.0,
        help="seconds for which a terminated pod is still shown",
    )
    told.add_argument(
        "--stale-runtime-s", type=float, default=5.0, help="seconds of stale runtime after an exit"
    )
    told.add_argument("--step-s", type=float, default=0.0, help="seconds per step of the pods' ComfyUI")
    told.add_argument("--seed", type=int, default=0, help="of random faults")
    told.add_argument("--faults", type=Path, help="JSON file with a list of faults to begin with")
    told.add_argument(
        "--network-volume",
        action="append",
        default=[],
        metavar="ID=DATACENTER",
        help="may be given several times",
    )
    told.add_argument(
        "--agent",
        choices=("simulated", "real", "leased"),
        default="simulated",
        help="real: pods run python -m agent; leased: it ends its pod itself when no gateway asks",
    )
    told.add_argument(
        "--body-limit-bytes",
        type=int,
        default=ProxyLimits().body_bytes,
        help="larger requests get the proxy's 413",
    )
    told.add_argument("--balance-usd", type=float, help="pods end when it is spent; no bound unless given")
    told.add_argument(
        "--calls-per-minute", type=int, help="of the APIs, beyond it 429; no bound unless given"
    )
    add_installation(told)
    return told


def make_cloud(args: argparse.Namespace) -> RunPodSimulator:
    """Raises ValueError or OSError for options that make no sense."""
    volumes = []
    for told in args.network_volume:
        volume_id, _, data_center = told.partition("=")
        if not volume_id or not data_center:
            raise ValueError(f"--network-volume {told}: ID=DATACENTER is meant")
        volumes.append(NetworkVolume(volume_id, volume_id, 100, data_center))
    cloud = RunPodSimulator(
        api_key=args.api_key,
        delays=Delays(
            create_s=args.create_s,
            list_lag_s=args.list_lag_s,
            runtime_s=0.3 * args.boot_s,
            port_s=0.5 * args.boot_s,
            agent_ready_s=0.6 * args.boot_s,
            app_ready_s=args.boot_s,
            terminate_visible_s=args.terminate_visible_s,
            stale_runtime_s=args.stale_runtime_s,
        ),
        network_volumes=volumes,
        step_s=args.step_s,
        seed=args.seed,
        installation=installation(args),
        agent=args.agent,
    )
    bounds = {
        "balance_usd": args.balance_usd,
        "calls_per_minute": args.calls_per_minute,
    }
    cloud.change_account(
        AccountChange(**{name: value for name, value in bounds.items() if value is not None})
    )
    if args.faults:
        for fault in TypeAdapter(list[Fault]).validate_json(args.faults.read_bytes()):
            cloud.faults.add(fault)
    return cloud


async def run(cloud: RunPodSimulator, host: str, port: int, limits: ProxyLimits) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(cloud, host=host, port=port, limits=limits) as served:
        where = {
            "RUNPOD_API_BASE": served.api_base,
            "RUNPOD_PROXY_TEMPLATE": served.proxy_template,
            "RUNPOD_TELEMETRY_TEMPLATE": served.telemetry_url_template,
        }
        print(json.dumps(where), flush=True)
        await stop.wait()


def main() -> int:
    args = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        cloud = make_cloud(args)
        limits = ProxyLimits(body_bytes=args.body_limit_bytes)
        asyncio.run(run(cloud, args.host, args.port, limits))
    except (ValidationError, ValueError, OSError) as error:
        print(f"simulators.runpod: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
