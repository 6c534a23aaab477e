"""``python -m comfy_gateway.costs [--since DAY] [--by user|day|pod] [--csv]``."""

import argparse
import asyncio
import csv
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta

from tabulate import tabulate

from comfy_gateway.adapters.clock import SystemClock
from comfy_gateway.adapters.sql.database import open_database
from comfy_gateway.adapters.sql.store import SqlSessionStore
from comfy_gateway.core.errors import StoreUnavailable
from comfy_gateway.core.money.costs import Bill, spent_by_day, spent_by_user
from comfy_gateway.settings import SettingsError, load

type Rows = list[tuple[str, ...]]


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 when it is told, 1 when the database cannot be read, 2 for wrong arguments or settings."""
    parser = argparse.ArgumentParser(
        prog="./run_gateway.sh costs", description="What private pods have cost, those that failed included."
    )
    parser.add_argument(
        "--since",
        type=date.fromisoformat,
        metavar="DAY",
        help="from this day on (UTC), such as 2026-11-01; 30 days ago when not given",
    )
    parser.add_argument(
        "--by",
        choices=("user", "team", "day", "pod"),
        default="user",
        help="one line for each; default: user",
    )
    parser.add_argument("--csv", action="store_true", help="comma separated, for a spreadsheet")
    chosen = parser.parse_args(arguments)
    now = SystemClock().now()
    since = datetime.combine(chosen.since or (now - timedelta(days=30)).date(), time(), UTC)
    try:
        settings = load()
        bills = asyncio.run(_read(settings.database_url.get_secret_value(), since))
    except SettingsError as error:
        sys.stderr.write("".join(f"{fault}\n" for fault in error.faults))
        return 2
    except (StoreUnavailable, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    (_write_csv if chosen.csv else _write_table)(
        _rows(bills, chosen.by, settings.pod.team_keys, since=since, now=now)
    )
    unpriced = sum(bill.usd_per_hour is None for bill in bills)
    if unpriced:
        sys.stderr.write(
            f"{unpriced} pods have no price: RunPod never told it, and they are counted as free\n"
        )
    return 0


async def _read(url: str, since: datetime) -> Sequence[Bill]:
    store = SqlSessionStore(await open_database(url))
    try:
        return await store.bills(since=since)
    finally:
        await store.aclose()


def _rows(
    bills: Sequence[Bill], by: str, teams: Mapping[str, frozenset[str]], *, since: datetime, now: datetime
) -> Rows:
    total = f"{sum(bill.usd(since, now) for bill in bills):.2f}"
    match by:
        case "day":
            days = spent_by_day(bills, since=since, until=now)
            return [
                ("day", "usd"),
                *((day.isoformat(), f"{usd:.2f}") for day, usd in days.items()),
                ("total", total),
            ]
        case "team":
            spent = spent_by_user(bills, since=since, until=now)
            in_no_team = spent.keys() - frozenset[str]().union(*teams.values())
            lines = (
                (
                    team,
                    str(sum(bill.user_key in keys for bill in bills)),
                    f"{sum(spent.get(key, 0.0) for key in keys):.2f}",
                )
                for team, keys in [*teams.items(), ("no team", in_no_team)]
            )
            return [("team", "pods", "usd"), *lines, ("total", str(len(bills)), total)]
        case "pod":
            rows: Rows = [("pod", "user", "gpu", "began", "hours", "usd", "end")]
            for bill in bills:
                end = "running" if bill.is_running and bill.ended_at is None else bill.cause or "not known"
                hours, usd = f"{bill.hours(since, now):.2f}", f"{bill.usd(since, now):.2f}"
                began = bill.began_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
                rows.append((bill.pod_name, bill.user_key, bill.gpu_type or "", began, hours, usd, end))
            return [*rows, ("total", "", "", "", "", total, "")]
        case _:
            spent = spent_by_user(bills, since=since, until=now)
            pods = {user: sum(bill.user_key == user for bill in bills) for user in spent}
            users = sorted(spent, key=lambda user: (-spent[user], user))
            lines = ((user, str(pods[user]), f"{spent[user]:.2f}") for user in users)
            return [("user", "pods", "usd"), *lines, ("total", str(len(bills)), total)]


def _write_csv(rows: Rows) -> None:
    csv.writer(sys.stdout).writerows(rows)


def _write_table(rows: Rows) -> None:
    titles, *lines = rows
    sys.stdout.write(f"{tabulate(lines, titles, tablefmt='plain', disable_numparse=True)}\n")


if __name__ == "__main__":
    sys.exit(main())
