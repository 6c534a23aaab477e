"""The running agent: the only place that puts its parts together, and the owner of its tasks."""

import asyncio
import contextlib
import functools
import logging
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import psutil
from aiohttp import web

from agent.auth import guard, json_errors
from agent.clock import Clock, SystemClock
from agent.comfyui import ComfyUI, Queue
from agent.file_routes import FileRoutes
from agent.gpu import GpuReader, GpuReading, NvmlReader
from agent.lease import Terms
from agent.lease_watch import LeaseWatch
from agent.log_routes import LogRoutes
from agent.machine import MachineReader, MachineReading
from agent.outputs import Outputs
from agent.own_pod import OwnPod
from agent.sampler import Sample, Sampler
from agent.settings import Settings
from agent.source import Source
from agent.telemetry_routes import TelemetryRoutes
from agent.uploads import Uploads

logger = logging.getLogger("agent")

SHUTDOWN_S = 1.0
CLEAN_EVERY_S = 3600.0
BACKLOG = 256


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the port is taken."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock = SystemClock()
    async with running(settings, clock, NvmlReader(clock.monotonic)):
        await stop.wait()


@contextlib.asynccontextmanager
async def running(settings: Settings, clock: Clock, gpu_reader: GpuReader) -> AsyncIterator[str]:
    """The agent at work, and its address. Raises OSError when the port is taken."""
    async with contextlib.AsyncExitStack() as stack:
        # One thread, so that NVML is never called twice at a time; left behind if the driver hangs.
        gpu_thread = ThreadPoolExecutor(1, "nvml")
        stack.callback(gpu_thread.shutdown, wait=False)
        stack.callback(gpu_thread.submit, gpu_reader.close)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        )
        comfyui = ComfyUI(session, settings.comfyui_url)
        sampler = _sampler(settings, clock, gpu_reader, gpu_thread, comfyui, stack)
        outputs = Outputs(settings.output_dir, await asyncio.to_thread(container_born_s))
        uploads = Uploads(
            settings.input_dir, max_part_bytes=settings.max_part_bytes, keep_s=settings.upload_keep_s
        )
        lease = _lease(settings, clock, session, sampler, outputs)
        app = web.Application(
            middlewares=[json_errors, guard(settings.token, lease.renew if lease else lambda: None)]
        )
        app.add_routes(TelemetryRoutes(sampler, comfyui).routes())
        app.add_routes(FileRoutes(outputs, uploads, max_part_bytes=settings.max_part_bytes).routes())
        app.add_routes(LogRoutes(settings.log_file).routes())
        url = await _listen(app, settings, stack)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sampler.run(), name="agent: sampler")]
            tasks.append(group.create_task(_clean(uploads, clock), name="agent: uploads"))
            if lease:
                tasks.append(group.create_task(lease.run(), name="agent: lease"))
            try:
                yield url
            finally:
                for task in tasks:
                    task.cancel()


def container_born_s() -> float:
    """When this container began, in seconds since the epoch: when its first process did. An agent that crashed and
    came back still knows which files are this pod's work."""
    return psutil.Process(1).create_time()


def _sampler(
    settings: Settings,
    clock: Clock,
    gpu_reader: GpuReader,
    gpu_thread: ThreadPoolExecutor,
    comfyui: ComfyUI,
    stack: contextlib.AsyncExitStack,
) -> Sampler:
    loop = asyncio.get_running_loop()
    machine_reader = MachineReader(
        settings.comfyui_dir, settings.model_sync_status, monotonic=clock.monotonic, time=clock.time
    )
    gpus: Source[list[GpuReading]] = Source(
        "the GPU",
        functools.partial(loop.run_in_executor, gpu_thread, gpu_reader.read),
        lambda last: [gpu.unread() for gpu in last or []],
        clock,
    )
    machine: Source[MachineReading] = Source(
        "the machine",
        functools.partial(asyncio.to_thread, machine_reader.read),
        lambda _: MachineReading(),
        clock,
    )
    queue: Source[Queue | None] = Source("ComfyUI's queue", comfyui.queue, lambda _: None, clock)
    for source in (gpus, machine, queue):
        stack.push_async_callback(source.aclose)
    started_s = clock.monotonic()

    async def take(number: int) -> Sample:
        read = await asyncio.gather(gpus.value(), machine.value(), queue.value())
        return Sample(number, clock.time(), clock.monotonic() - started_s, *read)

    return Sampler(take, settings.interval_s, clock)


def _lease(
    settings: Settings, clock: Clock, session: aiohttp.ClientSession, sampler: Sampler, outputs: Outputs
) -> LeaseWatch | None:
    """None where there is none; the log says why."""
    if settings.token is None:
        logger.warning("AUTH_TOKEN is not set: everybody who reaches this port may ask and send")
    if settings.pod is None:
        logger.info("No lease: RUNPOD_POD_ID is not set, so this is no RunPod pod")
        return None
    if settings.token is None:
        logger.warning(
            "No lease: without AUTH_TOKEN nobody can tell who renews it. This pod does not end itself"
        )
        return None
    if settings.lease_s == 0:
        logger.warning("No lease: AGENT_LEASE_S is 0. This pod does not end itself")
        return None
    if settings.pod.api_key is None:
        logger.warning(
            "RUNPOD_API_KEY is not set: only runpodctl can end this pod, and nobody can confirm it"
        )
    return LeaseWatch(
        Terms(
            lease_s=settings.lease_s,
            boot_grace_s=settings.boot_grace_s,
            hard_max_s=settings.hard_max_s,
            queue_silence_s=settings.queue_silence_s,
        ),
        clock,
        queue=lambda: sampler.latest.queue if sampler.latest else None,
        unfetched=functools.partial(asyncio.to_thread, outputs.unfetched),
        ending=OwnPod(session, settings.pod, clock),
    )


async def _listen(app: web.Application, settings: Settings, stack: contextlib.AsyncExitStack) -> str:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG).start()
    host, port = runner.addresses[0][:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    logger.info("The agent listens on %s", url)
    return url


async def _clean(uploads: Uploads, clock: Clock) -> None:
    while True:
        try:
            removed = await asyncio.to_thread(uploads.clean)
            if removed:
                logger.info("Removed %d uploads that nobody went on with", removed)
        except OSError as error:
            logger.warning("Unfinished uploads cannot be removed: %s", error.strerror)
        await clock.sleep(CLEAN_EVERY_S)
