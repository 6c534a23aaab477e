"""One file from a server in every mood: it ends whole and right, or not under its name at all."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from model_sync import bookkeeping
from model_sync.errors import DiskFull
from tests.model_sync.mean_server import MeanServer, Mood, content, file_of
from tests.model_sync.stand import FAST, Told, entry, leftovers, run, sha256

MB = 1 << 20
DATA = content(3 * MB + 12_345)
PATH = "checkpoints/x.safetensors"

CUT = Mood(cut_after_bytes=MB)
MOODS: dict[str, list[Mood]] = {
    "honest": [],
    "cut again and again": [CUT, CUT, CUT],
    "cut at the first byte": [Mood(cut_after_bytes=0), Mood(cut_after_bytes=1)],
    "a short body": [Mood(short=MB)],
    "busy": [Mood(status=429, headers=(("Retry-After", "0"),)), Mood(status=503), Mood(status=500)],
    "busy until a date": [Mood(status=503, headers=(("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT"),))],
    "a senseless Retry-After": [Mood(status=503, headers=(("Retry-After", "soon"),))],
    "200 in place of 206": [CUT, Mood(ignore_range=True)],
    "200 in place of 206 for ever": [CUT, Mood(ignore_range=True), Mood(ignore_range=True)],
    "another range than asked": [CUT, Mood(shift=7)],
    "another range twice": [CUT, Mood(shift=-7), Mood(shift=7)],
    "another total once": [CUT, Mood(total=len(DATA) + 1)],
    "another total at first": [Mood(total=len(DATA) - 1)],
    "416 once": [CUT, Mood(status=416)],
    "206 without a range": [CUT, Mood(status=206)],
    "a stall": [Mood(stall=True)],
    "more than it spoke of": [Mood(chunked=True, endless=True)],
    "without a length": [Mood(chunked=True)],
    "everything": [
        CUT,
        Mood(status=429),
        CUT,
        Mood(ignore_range=True),
        CUT,
        Mood(status=503),
        Mood(shift=1),
        CUT,
        Mood(stall=True),
    ],
}


@pytest.mark.parametrize("moods", MOODS.values(), ids=MOODS)
@pytest.mark.parametrize("checksum", [sha256(DATA), None], ids=["checksum", "size only"])
async def test_a_server_in_any_mood_gives_the_whole_file(
    moods: list[Mood], checksum: str | None, server: MeanServer, tmp_path: Path
) -> None:
    server.files["/x"] = file_of(DATA, *moods)
    wanted = entry(PATH, server.url("/x"), size_bytes=len(DATA), sha256=checksum)
    outcome = await run(tmp_path, wanted, pace=replace(FAST, retries=6))
    assert outcome.fetched == [PATH]
    assert (tmp_path / PATH).read_bytes() == DATA
    assert leftovers(tmp_path) == [PATH]


async def test_what_came_is_not_asked_for_again(server: MeanServer, tmp_path: Path) -> None:
    served = server.files["/x"] = file_of(DATA, CUT, CUT, CUT)
    await run(tmp_path, entry(PATH, server.url("/x"), data=DATA))
    assert [request.headers.get("Range") for request in served.requests[1:]] == [
        f"bytes={n * MB}-" for n in (1, 2, 3)
    ]


async def test_a_server_without_ranges_is_given_up_when_it_never_gets_further(
    server: MeanServer, tmp_path: Path
) -> None:
    server.files["/x"] = file_of(DATA, manner=Mood(ignore_range=True, cut_after_bytes=MB))
    outcome = await run(tmp_path, entry(PATH, server.url("/x"), data=DATA))
    assert list(outcome.missing) == [PATH]
    assert server.asked["/x"] <= 12


async def test_a_corrupt_mirror_is_left_for_the_next_and_its_bytes_with_it(
    server: MeanServer, tmp_path: Path
) -> None:
    server.files["/bad"] = file_of(DATA, manner=Mood(corrupt=True))
    good = server.files["/good"] = file_of(DATA)
    told = Told()
    await run(tmp_path, entry(PATH, server.url("/bad"), server.url("/good"), data=DATA), told=told)
    assert (tmp_path / PATH).read_bytes() == DATA
    assert server.asked["/bad"] == 1
    assert good.requests[0].headers.get("Range") is None
    assert "corrupt" in told.reasons("mirror_left")


async def test_the_bytes_of_one_mirror_are_continued_at_another(server: MeanServer, tmp_path: Path) -> None:
    server.files["/a"] = file_of(DATA, CUT, manner=Mood(status=503))
    good = server.files["/b"] = file_of(DATA)
    await run(tmp_path, entry(PATH, server.url("/a"), server.url("/b"), data=DATA))
    assert good.requests[0].headers["Range"] == f"bytes={MB}-"
    assert (tmp_path / PATH).read_bytes() == DATA


async def test_a_good_mirror_is_not_blamed_for_the_wrong_bytes_of_the_one_before(
    server: MeanServer, tmp_path: Path
) -> None:
    server.files["/bad"] = file_of(DATA, Mood(corrupt=True, cut_after_bytes=MB), manner=Mood(status=404))
    server.files["/good"] = file_of(DATA)
    outcome = await run(tmp_path, entry(PATH, server.url("/bad"), server.url("/good"), data=DATA))
    assert outcome.fetched == [PATH]
    assert server.asked["/good"] == 2


async def test_without_a_checksum_two_mirrors_are_never_joined(server: MeanServer, tmp_path: Path) -> None:
    server.files["/a"] = file_of(content(3 * MB, seed=1), CUT, manner=Mood(status=503))
    good = server.files["/b"] = file_of(DATA)
    await run(tmp_path, entry(PATH, server.url("/a"), server.url("/b")))
    assert (tmp_path / PATH).read_bytes() == DATA
    assert good.requests[0].headers.get("Range") is None


async def test_without_a_checksum_a_file_that_changed_meanwhile_starts_anew(
    server: MeanServer, tmp_path: Path
) -> None:
    server.files["/x"] = file_of(DATA, CUT, manner=Mood(status=503))
    wanted = entry(PATH, server.url("/x"), size_bytes=len(DATA))
    assert (await run(tmp_path, wanted)).missing
    new = content(len(DATA), seed=1)
    changed = server.files["/x"] = file_of(new, etag='"v2"')
    assert (await run(tmp_path, wanted)).fetched == [PATH]
    assert (tmp_path / PATH).read_bytes() == new
    assert changed.requests[0].headers["If-Range"] == '"v1"'
    assert changed.requests[0].headers["Range"] == f"bytes={MB}-"


async def test_without_a_checksum_the_same_version_is_continued(server: MeanServer, tmp_path: Path) -> None:
    served = server.files["/x"] = file_of(DATA, CUT, CUT)
    await run(tmp_path, entry(PATH, server.url("/x"), size_bytes=len(DATA)))
    assert (tmp_path / PATH).read_bytes() == DATA
    assert [request.headers.get("Range") for request in served.requests] == [
        None,
        f"bytes={MB}-",
        f"bytes={2 * MB}-",
    ]


async def test_without_checksum_and_version_nothing_is_continued(server: MeanServer, tmp_path: Path) -> None:
    served = server.files["/x"] = file_of(DATA, CUT, etag=None)
    await run(tmp_path, entry(PATH, server.url("/x"), size_bytes=len(DATA)))
    assert (tmp_path / PATH).read_bytes() == DATA
    assert served.requests[1].headers.get("Range") is None


@pytest.mark.parametrize(
    ("mood", "told"),
    [
        (Mood(status=404), "404"),
        (Mood(status=401), "401"),
        (Mood(status=451), "451"),
        (Mood(status=200, headers=(("Content-Type", "text/html"),), body=b"<html>sign in"), "a web page"),
        (Mood(headers=(("Content-Encoding", "gzip"),)), "another encoding"),
        (Mood(total=5), "has 5 bytes"),
        (Mood(redirect="/x"), "redirects"),
        (Mood(redirect="file:///etc/passwd"), "file:///etc/passwd"),
        (Mood(redirect="ftp://h/x"), "ftp://h/x"),
        (Mood(redirect="//[::1"), "no address"),
        (Mood(redirect="https://u:geheim@127.0.0.1/x"), "user or a password"),
        (Mood(status=503), "503"),
        (Mood(corrupt=True), "corrupt"),
        (Mood(stall=True), "Timeout"),
    ],
    ids=str,
)
async def test_a_mirror_that_is_none_is_told_with_its_reason_and_leaves_no_file(
    mood: Mood, told: str, server: MeanServer, tmp_path: Path
) -> None:
    server.files["/x"] = file_of(DATA, manner=mood)
    outcome = await run(
        tmp_path, entry(PATH, server.url("/x?signature=geheim"), data=DATA), pace=replace(FAST, stall_s=0.1)
    )
    (reason,) = outcome.missing[PATH]
    assert told in reason
    assert "geheim" not in reason
    assert PATH not in leftovers(tmp_path)


async def test_nobody_listening_is_a_reason_too(tmp_path: Path, free_port: int) -> None:
    outcome = await run(tmp_path, entry(PATH, f"http://127.0.0.1:{free_port}/x", data=DATA))
    assert "ClientConnectorError" in outcome.missing[PATH][0]


async def test_a_slow_mirror_waits_until_the_others_were_asked(server: MeanServer, tmp_path: Path) -> None:
    server.files["/slow"] = file_of(DATA, manner=Mood(trickle_s=0.1))
    server.files["/good"] = file_of(DATA)
    told = Told()
    await run(tmp_path, entry(PATH, server.url("/slow"), server.url("/good"), data=DATA), told=told)
    assert (tmp_path / PATH).read_bytes() == DATA
    assert "bytes/s" in told.reasons("mirror_left")


async def test_a_slow_mirror_is_better_than_none(server: MeanServer, tmp_path: Path) -> None:
    data = DATA[:20_000]
    server.files["/slow"] = file_of(data, manner=Mood(trickle_s=0.05))
    outcome = await run(tmp_path, entry(PATH, server.url("/slow"), server.url("/missing"), data=data))
    assert outcome.fetched == [PATH]
    assert (tmp_path / PATH).read_bytes() == data


async def test_retry_after_is_obeyed_up_to_a_limit(server: MeanServer, tmp_path: Path) -> None:

    server.files["/x"] = file_of(DATA, Mood(status=429, headers=(("Retry-After", "9999"),)))
    started_at = time.monotonic()
    await run(tmp_path, entry(PATH, server.url("/x"), data=DATA), pace=replace(FAST, retry_after_max_s=0.3))
    assert 0.3 <= time.monotonic() - started_at < 5


async def test_an_empty_file_is_a_file(server: MeanServer, tmp_path: Path) -> None:
    server.files["/x"] = file_of(b"")
    await run(tmp_path, entry("a/empty", server.url("/x"), data=b""), entry("a/unknown", server.url("/x")))
    assert leftovers(tmp_path) == ["a/empty", "a/unknown"]


async def test_a_file_that_is_there_is_read_once_and_not_fetched(server: MeanServer, tmp_path: Path) -> None:
    target = tmp_path / PATH
    target.parent.mkdir()
    target.write_bytes(DATA)
    wanted = entry(PATH, server.url("/x"), data=DATA)
    assert (await run(tmp_path, wanted)).present == [PATH]
    record = bookkeeping.recall(tmp_path, PATH)
    assert record is not None
    assert (record.sha256, record.ours) == (sha256(DATA), False)
    assert server.asked["/x"] == 0


@pytest.mark.parametrize("there", [DATA[:-1], content(len(DATA), seed=1)], ids=["too short", "other bytes"])
async def test_a_wrong_file_stays_until_the_right_one_takes_its_place(
    there: bytes, server: MeanServer, tmp_path: Path
) -> None:
    target = tmp_path / PATH
    target.parent.mkdir()
    target.write_bytes(there)
    server.files["/x"] = file_of(DATA, manner=Mood(status=404))
    wanted = entry(PATH, server.url("/x"), data=DATA)
    assert list((await run(tmp_path, wanted)).missing) == [PATH]
    assert target.read_bytes() == there
    server.files["/x"] = file_of(DATA)
    assert (await run(tmp_path, wanted)).fetched == [PATH]
    assert target.read_bytes() == DATA


async def test_a_file_that_was_changed_since_it_was_read_is_read_again(
    server: MeanServer, tmp_path: Path
) -> None:
    server.files["/x"] = file_of(DATA)
    wanted = entry(PATH, server.url("/x"), data=DATA)
    await run(tmp_path, wanted)
    (tmp_path / PATH).write_bytes(content(len(DATA), seed=9))
    assert (await run(tmp_path, wanted)).fetched == [PATH]
    assert (tmp_path / PATH).read_bytes() == DATA


async def test_a_folder_or_a_link_in_the_place_of_the_file_is_a_reason(
    server: MeanServer, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    (base / "a/folder").mkdir(parents=True)
    (base / "a/out").symlink_to(tmp_path)
    server.files["/x"] = file_of(DATA)
    outcome = await run(
        base,
        entry("a/folder", server.url("/x"), data=DATA),
        entry("a/out/x", server.url("/x"), data=DATA),
    )
    assert sorted(outcome.missing) == ["a/folder", "a/out/x"]
    assert "symbolic link" in outcome.missing["a/out/x"][0]
    assert not (tmp_path / "x").exists()


async def test_a_link_in_the_place_of_the_part_is_not_written_through(
    server: MeanServer, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    (base / "a").mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (base / "a/x.part").symlink_to(victim)
    server.files["/x"] = file_of(DATA)
    outcome = await run(base, entry("a/x", server.url("/x"), data=DATA))
    assert list(outcome.missing) == ["a/x"]
    assert victim.read_text() == "precious"


async def test_more_than_fits_on_the_disk_is_refused_before_the_first_byte(
    server: MeanServer, tmp_path: Path
) -> None:
    server.files["/x"] = file_of(DATA)
    with pytest.raises(DiskFull, match="are free"):
        await run(tmp_path, entry(PATH, server.url("/x"), size_bytes=1 << 60))
    assert server.asked["/x"] == 0


async def test_a_size_that_nobody_published_is_asked_for_before(server: MeanServer, tmp_path: Path) -> None:
    server.files["/x"] = file_of(DATA, Mood(total=1 << 60))
    with pytest.raises(DiskFull):
        await run(tmp_path, entry(PATH, server.url("/x")))
    assert leftovers(tmp_path) == []


async def test_many_files_come_at_once_and_one_missing_spoils_no_other(
    server: MeanServer, tmp_path: Path
) -> None:
    data = {f"a/{n}": content(200_000 + n, seed=n) for n in range(12)}
    for path, bytes_ in data.items():
        server.files[f"/{path}"] = file_of(bytes_, Mood(cut_after_bytes=100_000))
    wanted = [entry(path, server.url(f"/{path}"), data=bytes_) for path, bytes_ in data.items()]
    told = Told()
    outcome = await run(
        tmp_path,
        *wanted,
        entry("a/no", server.url("/no")),
        entry("a/opt", server.url("/no"), optional=True),
        told=told,
    )
    assert sorted(outcome.fetched) == sorted(data)
    assert (list(outcome.missing), list(outcome.missing_optional)) == (["a/no"], ["a/opt"])
    assert all((tmp_path / path).read_bytes() == bytes_ for path, bytes_ in data.items())
    assert told.ticks[-1].done_bytes <= told.ticks[-1].total_bytes == sum(map(len, data.values()))


async def test_the_cap_holds_over_all_files_together(server: MeanServer, tmp_path: Path) -> None:

    server.files["/x"] = file_of(DATA[: MB // 2])
    wanted = [entry(f"a/{n}", server.url("/x"), data=DATA[: MB // 2]) for n in range(4)]
    started_at = time.monotonic()
    await run(tmp_path, *wanted, pace=replace(FAST, max_bytes_per_s=2 * MB))
    # 2 MB at 2 MB/s, less the quarter second that may come at once.
    assert 0.7 <= time.monotonic() - started_at < 5
