"""Arguments in, exit code out.

0   complete: everything required is there (and right, for `verify`)
1   something required is missing or wrong; it is listed
2   a bad manifest, argument or token file
3   the disk is full, or would be
130, 143   interrupted by SIGINT or SIGTERM; what came stays and is continued
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from rich.console import Console
from yarl import URL

from model_sync import addition, base_folder, manifest, prune, tokens
from model_sync.bandwidth import Bandwidth
from model_sync.errors import BadManifest, BadSetting, DiskFull, SourceError, SyncError
from model_sync.manifest import DEFAULT_GROUP, Entry, Manifest
from model_sync.options import Pace
from model_sync.progress import Bars, Lines, Report, Screen, StatusFile
from model_sync.s3 import Bucket
from model_sync.sources import Source
from model_sync.sync import Sync, files_of_repository, looked
from model_sync.tokens import Tokens
from model_sync.transfer import Transfer
from model_sync.web import Web

COMPLETE, MISSING, BAD, FULL = 0, 1, 2, 3

DEFAULT_MANIFEST = Path(__file__).parent / "manifest.json"
DEFAULT_BASE = Path("models")


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """The exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        found = tokens.from_environment(os.environ if environment is None else environment)
        return asyncio.run(_interruptible(chosen.run(chosen, found)))
    except BadManifest as error:
        print(*error.faults, sep="\n", file=sys.stderr)
        return BAD
    except DiskFull as error:
        print(error, file=sys.stderr)
        return FULL
    except SyncError as error:
        print(error, file=sys.stderr)
        return BAD


async def _interruptible(run: Coroutine[None, None, int]) -> int:
    """Cancelled by the first SIGINT or SIGTERM, so that every part is closed; a second one ends at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    got: list[int] = []

    def interrupt(number: int) -> None:
        got.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError):  # Windows; a thread that is not the main one
            loop.add_signal_handler(number, interrupt, number)
    try:
        return await run
    except asyncio.CancelledError:
        if not got:
            raise
        return 128 + got[0]


# ------------------------------------------------------------------------------------------------------------ commands


async def _download(chosen: argparse.Namespace, found: Tokens) -> int:
    listed = manifest.load(chosen.manifest)
    entries = _selected(listed, chosen)
    base = _base(chosen, make=True)
    pace = _pace(chosen)
    status = StatusFile(chosen.status_file)
    with _screen() as screen:
        report = Report(screen, status)
        for line in listed.set_aside:
            report.event("set_aside", reason=line)
        bandwidth = Bandwidth(pace.max_bytes_per_s)
        ended = False
        try:
            report.state("running")
            async with _sources(found, pace, bandwidth) as sources:
                transfer = Transfer(
                    base, sources, tokens=found, bandwidth=bandwidth, pace=pace, report=report
                )
                outcome = await Sync(base, sources, transfer, tokens=found, pace=pace, report=report).run(
                    entries
                )
            ended = not outcome.missing
        finally:
            report.state("idle" if ended else "failed")
        report.event(
            "done",
            fetched=len(outcome.fetched),
            present=len(outcome.present),
            missing=sorted(outcome.missing),
            missing_optional=sorted(outcome.missing_optional),
        )
    return MISSING if outcome.missing else COMPLETE


async def _verify(chosen: argparse.Namespace, found: Tokens) -> int:
    base = _base(chosen)
    wrong = 0
    with _screen() as screen:
        for entry in await _files(_selected(manifest.load(chosen.manifest), chosen), found):
            finding = await looked(base, entry, again=not chosen.quick)
            screen.event(
                finding.state,
                {"path": entry.path, "size_bytes": finding.size_bytes, "reason": finding.reason},
            )
            wrong += finding.state != "present" and not entry.optional
        screen.event("done", {"wrong_or_missing": wrong})
    return MISSING if wrong else COMPLETE


async def _list(chosen: argparse.Namespace, _found: Tokens) -> int:
    listed = manifest.load(chosen.manifest)
    base = _base(chosen)
    chosen.all, chosen.optional = chosen.all or not chosen.group, True
    with _screen() as screen:
        for entry in _selected(listed, chosen):
            if entry.repository is not None:
                state = "repository"
            else:
                state = (await asyncio.to_thread(base_folder.look, base, entry, read=False)).state
            screen.event(
                state,
                {
                    "path": entry.path,
                    "name": entry.name,
                    "group": entry.group,
                    "optional": entry.optional,
                    "size_bytes": entry.size_bytes if entry.size_bytes is not None else entry.about_bytes,
                    "sha256": entry.sha256,
                },
            )
        for line in listed.set_aside:
            screen.event("set_aside", {"reason": line})
    return COMPLETE


async def _prune(chosen: argparse.Namespace, _found: Tokens) -> int:
    listed = manifest.load(chosen.manifest)
    base = _base(chosen)
    with _screen() as screen:
        for leftover in await asyncio.to_thread(prune.leftovers, base, listed.entries):
            told: dict[str, object] = {"path": leftover.path, "size_bytes": leftover.size_bytes}
            if chosen.dry_run:
                screen.event("would_remove", told)
            else:
                screen.event("removed" if await prune.remove(base, leftover) else "busy", told)
    return COMPLETE


async def _add(chosen: argparse.Namespace, found: Tokens) -> int:
    pace = _pace(chosen)
    url = addition.read(chosen.url)
    try:
        async with (
            _sources(found, pace, Bandwidth(None)) as sources,
            Web.running(found, stall_s=pace.stall_s) as web,
        ):
            said = await addition.published(url, sources(url), web, found)
    except SourceError as error:
        raise BadSetting(found.redacted(str(error))) from error
    if chosen.sha256 and said.sha256 not in {None, chosen.sha256.lower()}:
        raise BadSetting(f"the publisher says sha256 {said.sha256}")
    added = addition.entry(
        said,
        path=chosen.path,
        folder=chosen.folder,
        name=chosen.name,
        sha256=chosen.sha256.lower() if chosen.sha256 else None,
        group=(chosen.group or [DEFAULT_GROUP])[0],
        optional=chosen.optional,
    )
    replaced = await asyncio.to_thread(addition.write, chosen.manifest, added)
    with _screen() as screen:
        screen.event("replaced" if replaced else "added", added)
    return COMPLETE


# --------------------------------------------------------------------------------------------------------------- parts


def _selected(listed: Manifest, chosen: argparse.Namespace) -> tuple[Entry, ...]:
    groups = frozenset(chosen.group or ())
    if not groups and not chosen.all and listed.entries:
        groups = frozenset({DEFAULT_GROUP})
    return listed.selected(groups, everything=chosen.all, optional=chosen.optional)


async def _files(entries: tuple[Entry, ...], found: Tokens) -> list[Entry]:
    """With the files of repositories. A repository that cannot be listed stays, and will be reported as missing."""
    files: list[Entry] = []
    for entry in entries:
        if entry.repository is None:
            files.append(entry)
            continue
        try:
            files.extend(await files_of_repository(entry, found))
        except SourceError:
            files.append(entry)
    return files


def _base(chosen: argparse.Namespace, *, make: bool = False) -> Path:
    base: Path = chosen.base_dir
    try:
        if make:
            base.mkdir(parents=True, exist_ok=True)
        if make and not os.access(base, os.W_OK | os.X_OK):
            raise BadSetting(f"--base-dir {base} cannot be written to")
        return base.resolve()
    except OSError as error:
        raise BadSetting(f"--base-dir {base}: {error.strerror}") from error


def _pace(chosen: argparse.Namespace) -> Pace:
    return Pace(
        parallel=chosen.parallel,
        max_bytes_per_s=chosen.max_mbps * 1_000_000 / 8 if chosen.max_mbps else None,
        retries=chosen.retries,
        backoff_s=chosen.backoff_s,
        stall_s=chosen.stall_s,
        slow_bytes_per_s=chosen.slow_kbps * 1000 / 8,
        slow_window_s=chosen.slow_window_s,
    )


@asynccontextmanager
async def _sources(found: Tokens, pace: Pace, bandwidth: Bandwidth) -> AsyncIterator[Callable[[URL], Source]]:
    async with Web.running(found, stall_s=pace.stall_s, block_bytes=bandwidth.block_bytes) as web:
        bucket = Bucket(block_bytes=bandwidth.block_bytes)

        def source(url: URL) -> Source:
            return bucket if url.scheme == "s3" else web

        yield source


@contextmanager
def _screen() -> Iterator[Screen]:
    """Bars where somebody looks, JSON lines everywhere else."""
    if sys.stdout.isatty():
        with Bars.on(Console()) as bars:
            yield bars
    else:
        yield Lines(sys.stdout)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1 and 64")
    return number


def _sha256(text: str) -> str:
    if len(text) != 64 or not set(text.lower()) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is no sha256 in hexadecimal")
    return text


def _common(defaults: Pace) -> argparse.ArgumentParser:
    """Accepted before and after the command; set only where given, so that the one does not undo the other.

    Made anew for each parser: `set_defaults` writes into the arguments that it finds.
    """
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    where = common.add_argument_group("where")
    where.add_argument("--base-dir", type=Path, help="the models folder (default: models)")
    where.add_argument("--manifest", type=Path, help="default: the example beside the program")
    which = common.add_argument_group("which")
    which.add_argument(
        "--group",
        action="append",
        help="a group, or a family of ComfyUI-Manager; may be repeated (default: base)",
    )
    which.add_argument("--all", action="store_true", help="every group")
    which.add_argument(
        "--optional", action="store_true", help="optional files too; for `add`: mark as optional"
    )
    how = common.add_argument_group("how")
    how.add_argument("--status-file", type=Path, help='written as {"state", "done_bytes", "total_bytes"}')
    how.add_argument("--parallel", type=_count, help=f"files at once (default: {defaults.parallel})")
    how.add_argument("--max-mbps", type=_positive, help="megabits a second, over all files (default: no cap)")
    how.add_argument(
        "--retries", type=_count, help=f"fruitless attempts per mirror (default: {defaults.retries})"
    )
    how.add_argument("--backoff-s", type=_positive, help=f"first pause (default: {defaults.backoff_s:g})")
    how.add_argument(
        "--stall-s", type=_positive, help=f"silence before a retry (default: {defaults.stall_s:g})"
    )
    how.add_argument(
        "--slow-kbps", type=_positive, help="kilobits a second below which other mirrors come first"
    )
    how.add_argument(
        "--slow-window-s", type=_positive, help=f"for so long (default: {defaults.slow_window_s:g})"
    )
    return common


def _parser() -> argparse.ArgumentParser:
    defaults = Pace()
    parser = argparse.ArgumentParser(
        prog="python -m model_sync",
        description="Fetches the model files of a manifest, verified and resumable.",
        epilog="exit codes: 0 complete, 1 something required is missing, 2 bad manifest or argument, 3 disk full",
        parents=[_common(defaults)],
    )
    parser.set_defaults(
        base_dir=DEFAULT_BASE,
        manifest=DEFAULT_MANIFEST,
        group=None,
        all=False,
        optional=False,
        status_file=None,
        parallel=defaults.parallel,
        max_mbps=None,
        retries=defaults.retries,
        backoff_s=defaults.backoff_s,
        stall_s=defaults.stall_s,
        slow_kbps=defaults.slow_bytes_per_s * 8 / 1000,
        slow_window_s=defaults.slow_window_s,
        run=_download,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", description="default: download")

    def command(name: str, run: object, help_: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_, description=help_, parents=[_common(defaults)])
        added.set_defaults(run=run)
        return added

    command("download", _download, "fetch what is missing or wrong")
    command("verify", _verify, "read every file and compare").add_argument(
        "--quick", action="store_true", help="only what has changed since it was last read"
    )
    command("list", _list, "the entries and what is there of them; all groups unless --group names some")
    command("prune", _prune, "remove what model_sync fetched and the manifest no longer names").add_argument(
        "--dry-run", action="store_true", help="only tell"
    )
    add = command(
        "add", _add, "write an entry for a file into the manifest, with what the publisher says of it"
    )
    add.add_argument("url", metavar="URL")
    add.add_argument("--path", help="below the models folder, say checkpoints/x.safetensors")
    add.add_argument("--folder", help="instead of --path: the folder, under the name that the server gives")
    add.add_argument("--name", help="for people")
    add.add_argument("--sha256", type=_sha256, help="where you know it and the publisher does not say it")
    return parser
