"""Which server has the file that is asked for by the name under which it was shown."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.files.files import FileName, pod_alias, shown
from comfy_gateway.core.files.whereabouts import InVault, Nowhere, OnBackend, Unknown
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream
from comfy_gateway.service.files.files import Files
from comfy_gateway.service.files.told_files import TOLD_FOR_S, ToldFiles
from comfy_gateway.service.requests.routes import Routes
from tests.fakes.clock import FakeClock
from tests.service.world import ALICE, BOB, duty

HOME = duty(0)
OTHER = Backend("duty-1", Source.DUTY, Upstream("http", "duty1.test", 80), alias="server-1")
POD = Backend("comfy-gw-alice-a1", Source.PRIVATE, Upstream("https", "pod1.test", 443), "t", "private-a1")
BOBS = Backend("comfy-gw-bob-b1", Source.PRIVATE, Upstream("https", "pod2.test", 443), "t", "private-b1")
NAME = FileName("ComfyUI_00001_.png")
PEER = "10.0.0.1"


class Keeps:
    """A vault with files of one pod of Alice's."""

    def holds(self, user_key: str, shown: FileName) -> bool:
        return user_key == ALICE.key and shown.subfolder.split("/")[0] == "private-a1"


@pytest.fixture
def routes() -> Routes:
    made = Routes(HOME, lambda _user: HOME, (HOME, OTHER))
    made.set_private(ALICE, POD)
    made.set_private(BOB, BOBS)
    return made


@pytest.fixture
def files(routes: Routes, clock: FakeClock) -> Files:
    return Files(routes=routes, told=ToldFiles(clock))


def output(*named: Any) -> dict[str, Any]:
    return {"9": {"images": list(named)}}


def named(file: FileName) -> dict[str, str]:
    return {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}


# -- by alias


@pytest.mark.parametrize("kind", ["output", "temp"])
@pytest.mark.parametrize("subfolder", ["", "a/b", "a\\b", "/odd"])
def test_the_alias_says_whose_file_it_is(files: Files, kind: str, subfolder: str) -> None:
    file = FileName("a.png", subfolder, kind)
    assert files.resolve(ALICE.key, PEER, shown(file, POD.alias)) == OnBackend(POD, file)
    assert files.resolve(ALICE.key, PEER, shown(file, OTHER.alias)) == OnBackend(OTHER, file)
    assert files.resolve(None, PEER, shown(file, OTHER.alias)) == OnBackend(OTHER, file), "open to everybody"
    assert files.resolve(ALICE.key, PEER, file) == Unknown()


def test_inputs_and_odd_types_bear_no_alias(files: Files) -> None:
    assert files.resolve(ALICE.key, PEER, FileName("a.png", "private-a1", "input")) == Unknown()
    assert files.resolve(ALICE.key, PEER, FileName("a.png", "private-a1", "")) == Unknown()


def test_the_pod_of_somebody_else_is_not_there(files: Files) -> None:
    assert files.resolve(ALICE.key, PEER, shown(NAME, BOBS.alias)) == Unknown()
    assert files.resolve(None, PEER, shown(NAME, BOBS.alias)) == Unknown()


def test_a_pod_that_is_gone_is_looked_for_in_the_vault_of_its_user(files: Files, routes: Routes) -> None:
    files.vault = Keeps()
    there = shown(NAME, POD.alias)
    on_pod = OnBackend(POD, NAME, kept_for=ALICE.key)
    assert files.resolve(ALICE.key, PEER, there) == on_pod, "it has the newest"
    routes.retire_private(ALICE)
    assert files.resolve(ALICE.key, PEER, there) == on_pod, "also while it drains"
    routes.clear_private(ALICE)
    assert files.resolve(ALICE.key, PEER, there) == InVault(ALICE.key, there)
    assert files.resolve(BOB.key, PEER, there) == Unknown()
    assert files.resolve(None, PEER, there) == Unknown()


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(["output", "temp", "input", "x"]))
def test_no_name_leads_to_the_pod_of_somebody_else(filename: str, subfolder: str, kind: str) -> None:
    routes = Routes(HOME, lambda _user: HOME, (HOME, OTHER))
    routes.set_private(BOB, BOBS)
    files = Files(routes=routes, told=ToldFiles(FakeClock()))
    files.note(
        BOB.key, BOBS, "p", {"text": [filename], "images": [named(FileName(filename or "a", subfolder))]}
    )
    for asked in (
        FileName(filename, subfolder, kind),
        shown(FileName(filename, subfolder, kind), BOBS.alias),
    ):
        for who in (ALICE.key, None):
            assert files.resolve(who, PEER, asked) == Unknown()


# -- told by an answer or on a socket


async def test_a_peer_without_a_name_sees_what_it_was_told_of_for_a_while(
    files: Files, clock: FakeClock
) -> None:
    there = shown(NAME, POD.alias)
    files.tell([PEER], None, there)
    assert files.resolve(None, PEER, there) == Unknown()
    files.tell([PEER], ALICE.key, there)
    assert files.resolve(None, PEER, there) == OnBackend(POD, NAME)
    assert files.resolve(None, "10.0.0.2", there) == Unknown()
    assert files.resolve(BOB.key, PEER, there) == Unknown(), "who says a name is that one"
    await clock.advance(TOLD_FOR_S + 1)
    assert files.resolve(None, PEER, there) == Unknown()


def test_what_a_socket_tells_is_told_to_its_peers_while_it_is_open(files: Files) -> None:
    there = shown(NAME, POD.alias)
    with files.listening(PEER, ALICE.key):
        with (
            files.listening(PEER, ALICE.key),
            files.listening("10.0.0.2", BOB.key),
            files.listening("10.0.0.3", None),
        ):
            pass
        files.note(ALICE.key, POD, "p1", output(named(NAME)))
    assert files.resolve(None, PEER, there) == OnBackend(POD, NAME)
    assert files.resolve(None, "10.0.0.2", there) == files.resolve(None, "10.0.0.3", there) == Unknown()
    later = FileName("ComfyUI_00002_.png")
    files.note(ALICE.key, POD, "p1", output(named(later)))
    assert files.resolve(None, PEER, shown(later, POD.alias)) == Unknown()
    assert files._listening == {}


def test_what_peers_were_told_is_bounded(routes: Routes, clock: FakeClock) -> None:
    files = Files(routes=routes, told=ToldFiles(clock, max_told=2))
    for number in range(3):
        files.tell([PEER], ALICE.key, FileName(f"{number}.png", POD.alias))
    assert files.resolve(None, PEER, FileName("0.png", POD.alias)) == Unknown()
    assert files.resolve(None, PEER, FileName("2.png", POD.alias)) == OnBackend(POD, FileName("2.png"))


# -- bare names

MESH = FileName("a_00001_.glb", "mesh")
TOLD_BARE = {"result": ["mesh/a_00001_.glb", {"camera": None}, None]}


def test_a_bare_name_means_the_file_of_the_server_that_told_it_last(files: Files) -> None:
    assert files.resolve(ALICE.key, PEER, MESH) == Unknown()
    files.note(ALICE.key, HOME, "p1", TOLD_BARE)
    assert files.resolve(ALICE.key, PEER, MESH) == OnBackend(HOME, MESH)
    files.note(ALICE.key, POD, "p2", TOLD_BARE)
    assert files.resolve(ALICE.key, PEER, MESH) == OnBackend(POD, MESH)
    assert files.resolve(BOB.key, PEER, MESH) == Unknown()
    assert files.resolve(ALICE.key, PEER, FileName("mesh/a_00001_.glb")) == OnBackend(
        POD, FileName("mesh/a_00001_.glb")
    )


def test_a_bare_name_of_a_pod_that_is_gone_is_its_file_in_the_vault(files: Files, routes: Routes) -> None:
    files.note(ALICE.key, POD, "p1", TOLD_BARE)
    routes.clear_private(ALICE)
    assert files.resolve(ALICE.key, PEER, MESH) == Nowhere(), "home may have another file of that name"
    files.vault = Keeps()
    assert files.resolve(ALICE.key, PEER, MESH) == InVault(ALICE.key, shown(MESH, POD.alias))


def test_bare_names_are_learned_from_kept_entries_too(files: Files, routes: Routes) -> None:
    files.vault = Keeps()
    routes.clear_private(ALICE)
    files.seen_kept(ALICE.key, POD.id, TOLD_BARE)
    assert files.resolve(ALICE.key, PEER, MESH) == InVault(ALICE.key, shown(MESH, POD.alias))
    files.seen_kept(ALICE.key, HOME.id, TOLD_BARE)
    assert files.resolve(ALICE.key, PEER, MESH) == OnBackend(HOME, MESH)
    assert pod_alias(POD.id) == POD.alias


def test_what_home_named_in_full_keeps_its_meaning_whatever_a_pod_says_in_text(files: Files) -> None:
    files.note(ALICE.key, HOME, "p1", output(named(NAME)))
    files.note(ALICE.key, POD, "p2", {"text": [NAME.path]})
    assert files.resolve(ALICE.key, PEER, NAME) == OnBackend(HOME, NAME)
    files.note(ALICE.key, POD, "p2", output(named(FileName("b.png"))))
    assert files.resolve(ALICE.key, PEER, FileName("b.png")) == Unknown(), "it was shown under the alias"


def test_a_name_that_no_server_of_the_settings_bears_without_alias_is_no_other_servers(
    clock: FakeClock,
) -> None:
    """The one whose names these were has left the pool."""
    routes = Routes(OTHER, lambda _user: OTHER, (OTHER,))
    files = Files(routes=routes, told=ToldFiles(clock))
    assert routes.plain() is None
    files.note(ALICE.key, OTHER, "p1", output(named(NAME)))
    assert files.resolve(ALICE.key, PEER, shown(NAME, OTHER.alias)) == OnBackend(OTHER, NAME)
    files.seen_kept(ALICE.key, HOME.id, TOLD_BARE)
    assert files.resolve(ALICE.key, PEER, MESH) == Nowhere()
    assert files.resolve(ALICE.key, PEER, NAME) == Unknown(), "for the router, which asks nobody"


@pytest.mark.parametrize(
    "text", ["hello", "a.png\nb.png", "x" * 300 + ".png", "a.", "no name.tobecontinued", ".png"]
)
def test_texts_that_are_no_paths_are_not_remembered(files: Files, text: str) -> None:
    files.note(ALICE.key, POD, "p1", {"text": [text]})
    assert files.resolve(ALICE.key, PEER, FileName(text)) == Unknown()


def test_what_is_remembered_is_bounded(routes: Routes, clock: FakeClock) -> None:
    files = Files(routes=routes, told=ToldFiles(clock), max_loose=2, max_at_plain=2)
    for number in range(3):
        files.note(ALICE.key, POD, "p", {"text": [f"{number}.glb"]})
        files.note(ALICE.key, HOME, "p", output(named(FileName(f"{number}.png"))))
    assert len(files._loose) == len(files._at_plain) == 2
    assert files.resolve(ALICE.key, PEER, FileName("2.glb")) == OnBackend(POD, FileName("2.glb"))


# -- watchers


def test_watchers_hear_of_each_file_by_its_servers_own_name_until_they_stop(files: Files) -> None:
    heard: list[tuple[str | None, Backend, str, FileName]] = []
    stop = files.watch(lambda *told: heard.append(told))
    files.note(ALICE.key, POD, "p1", output(named(NAME), named(MESH)))
    files.note(None, HOME, "p2", output(named(NAME)))
    files.seen(ALICE.key, POD, output(named(NAME)))
    assert heard == [
        (ALICE.key, POD, "p1", NAME),
        (ALICE.key, POD, "p1", MESH),
        (None, HOME, "p2", NAME),
    ]
    stop()
    files.note(ALICE.key, POD, "p1", output(named(NAME)))
    assert len(heard) == 3
