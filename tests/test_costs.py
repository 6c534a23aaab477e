"""``run_gateway.sh costs`` on a real database."""

import asyncio
import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comfy_gateway.adapters.sql.store import open_store
from comfy_gateway.core.life.session import Pod, Session, State
from comfy_gateway.core.people.users import UserId
from comfy_gateway.costs.__main__ import main

NOW = datetime.now(UTC)


@pytest.fixture
async def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Alice has a pod, Bob had one, and an order of Carol's made none."""
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    monkeypatch.setenv("DUTY_POD_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("GATEWAY_DATABASE_URL", url)
    store = await open_store(url)
    for name, pod_id, price in (("alice", "p1", 2.0), ("bob", "p2", 1.0), ("carol", None, None)):
        user = UserId.from_key(f"named:{name}")
        pod = Pod(f"comfy-gw-{name}-a1", "a1", NOW - timedelta(hours=3), pod_id, "RTX 4090", price)
        saved = await store.save_session(Session(user, State.READY, NOW, pod))
        if name != "alice":
            await store.record_pod_end(user, pod.name, cause="idle for 600 s", at=NOW - timedelta(hours=1))
            await store.save_session(Session(user, State.SHARED, NOW, None, saved.version))
    await store.aclose()
    return tmp_path


async def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:

    assert await asyncio.to_thread(main, ["--csv", *arguments]) == 0
    return list(csv.reader(io.StringIO(capsys.readouterr().out)))


def dollars(*told: str) -> int:
    """The whole dollars."""
    return int(sum(map(float, told)) + 0.02)


async def test_by_user_the_dearest_first(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = await told(capsys)
    assert [row[:2] for row in rows] == [
        ["user", "pods"],
        ["named:alice", "1"],
        ["named:bob", "1"],
        ["total", "2"],
    ]
    assert rows[2][2] == "2.00"
    assert dollars(rows[1][2]) == 6  # and what it has cost since this module was loaded
    assert dollars(rows[3][2]) == 8


async def test_by_day_and_by_pod(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_day = await told(capsys, "--by", "day")
    assert dollars(*(row[1] for row in by_day[1:-1])) == 8
    assert (by_day[-1][0], dollars(by_day[-1][1])) == ("total", 8)
    by_pod = await told(capsys, "--by", "pod")
    assert [(row[0], dollars(row[5]), row[6]) for row in by_pod[1:3]] == [
        ("comfy-gw-alice-a1", 6, "running"),
        ("comfy-gw-bob-a1", 2, "idle for 600 s"),
    ]


async def test_by_team_with_those_who_are_in_none(
    state_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_TEAMS", '{"film": ["alice", "bob"], "games": ["bob"]}')
    rows = await told(capsys, "--by", "team")
    assert [(row[0], row[1], dollars(row[2])) for row in rows[1:]] == [
        ("film", "2", 8),
        ("games", "1", 2),
        ("no team", "0", 0),
        ("total", "2", 8),
    ]
    monkeypatch.setenv("GATEWAY_TEAMS", "{}")
    assert [(row[0], dollars(row[2])) for row in (await told(capsys, "--by", "team"))[1:]] == [
        ("no team", 8),
        ("total", 8),
    ]


async def test_since_a_day_that_is_to_come_nothing_was_spent(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tomorrow = (NOW + timedelta(days=1)).date().isoformat()
    assert (await told(capsys, "--since", tomorrow))[-1][2] == "0.00"


def test_wrong_settings_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUTY_POD_URL", "nonsense")
    assert main([]) == 2
    assert "DUTY_POD_URL" in capsys.readouterr().err


def test_a_database_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.db").write_text("not a database, and long enough to be none " * 100)
    monkeypatch.setenv("DUTY_POD_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("GATEWAY_DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/gateway.db")
    assert main([]) == 1
    assert capsys.readouterr().err


def test_what_is_no_day_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--since", "yesterday"])
    assert ended.value.code == 2
