"""Files follow the prompts that name them: between simulated servers, over real sockets and folders."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from comfy_gateway.core.errors import PromptRefused, StorageUnavailable, StoreUnavailable
from comfy_gateway.core.files.files import FileName
from comfy_gateway.core.files.whereabouts import InStore, OnBackend, Unknown
from comfy_gateway.core.people.users import IdKind, UserId
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord
from comfy_gateway.core.prompts.visibility import Isolation, Visibility
from tests.conditions import wait_for
from tests.service.inputs_stand import ALICE, BOB, PEER, World, load_image, named, png, sha256, world

X, Y = png(1), png(2)


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


# -- nothing to do


async def test_on_the_only_shared_server_a_prompt_is_sent_as_it_is_and_nothing_is_asked(
    around: World,
) -> None:
    document = load_image("a.png", "sub/b.png [output]")
    around.home.simulator.requests.clear()
    assert await around.inputs.carry(BOB, document, around.home.backend, peer=PEER) is document
    assert not around.home.simulator.requests


async def test_a_prompt_without_files_is_sent_as_it_is(around: World) -> None:
    around.move()
    document = {"prompt": {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}}
    assert await around.inputs.carry(ALICE, document, around.pod.backend) is document
    assert around.home.reads() == 0


# -- uploads


async def test_an_upload_from_before_the_move_is_on_the_pod_before_its_prompt(around: World) -> None:
    text = await around.uploaded("süß 1.png", X, subfolder="my pictures")
    around.move()
    assert await around.carried(text) == [text]
    assert around.pod.holds(text) == X
    assert (await around.answer_to(text))[0] == 200


async def test_a_file_is_carried_once(around: World) -> None:
    text = await around.uploaded("a.png", X)
    around.move()
    for _ in range(3):
        await around.carried(text, text)
    assert around.pod.uploads() == 1


async def test_two_prompts_at_once_carry_the_same_file_once(around: World) -> None:
    text = await around.uploaded("a.png", X)
    around.move()
    around.pod.simulator.mood.delay_s = 0.05
    sent = await asyncio.gather(*(around.carried(text) for _ in range(5)))
    assert sent == [[text]] * 5
    assert around.pod.uploads() == 1


async def test_another_file_of_the_name_on_the_pod_stays_and_the_prompt_is_rewritten(around: World) -> None:
    (around.pod.inputs / "a.png").write_bytes(Y)
    text = await around.uploaded("a.png", X)
    around.move()
    assert await around.carried(text) == ["a (1).png"]
    assert (around.pod.holds("a.png"), around.pod.holds("a (1).png")) == (Y, X)
    assert await around.carried(text) == ["a (1).png"]
    assert around.pod.uploads() == 1


async def test_the_name_in_a_rewritten_prompt_means_the_same_wherever_it_is_sent_later(around: World) -> None:
    (around.pod.inputs / "a.png").write_bytes(Y)
    text = await around.uploaded("a.png", X)
    around.move()
    [renamed] = await around.carried(text)
    around.move_back()
    [there] = await around.carried(renamed)
    assert around.home.holds(there) == X


async def test_an_upload_to_a_pod_that_is_gone_is_brought_to_duty_and_nothing_there_is_overwritten(
    around: World,
) -> None:
    around.move()
    text = await around.uploaded("a.png", X)
    await around.pod.stop.aclose()
    around.move_back()
    (around.home.inputs / "a.png").write_bytes(Y)
    assert await around.carried(text) == ["a (1).png"]
    assert (around.home.holds("a.png"), around.home.holds("a (1).png")) == (Y, X)


async def test_an_upload_survives_a_restart_of_the_gateway(around: World) -> None:
    around.move()
    text = await around.uploaded("a.png", X)
    await around.tasks.aclose()
    await around.build()
    await around.pod.stop.aclose()
    around.move_back()
    assert await around.carried(text) == ["a.png"]
    assert around.home.holds("a.png") == X


async def test_what_was_uploaded_to_the_temp_folder_stays_there(around: World) -> None:
    """The front end's webcam does this, and never looks at the answer."""
    await around.uploaded("17.png", X, type="temp", subfolder="webcam")
    around.move()
    assert await around.carried("webcam/17.png [temp]") == ["webcam/17.png [temp]"]
    assert around.pod.holds("webcam/17.png [temp]") == X


async def test_one_users_uploads_mean_nothing_to_another(around: World) -> None:
    around.move()
    await around.uploaded("a.png", X)
    (around.home.inputs / "a.png").write_bytes(Y)
    assert await around.carried("a.png", user=BOB) == ["a.png"]
    assert around.home.holds("a.png") == Y


async def test_a_script_that_uploads_without_a_name_and_prompts_with_a_client_id_finds_its_file(
    around: World,
) -> None:
    (around.home.inputs / "input.png").write_bytes(Y)
    answered = await around.uploaded("input.png", X, user=None)
    assert answered == "input (1).png"
    client = UserId(IdKind.CLIENT, "c1")
    around.routes.set_private(client, around.pod.backend)
    assert await around.carried(answered, user=client) == [answered]
    assert around.pod.holds(answered) == X
    [foreign] = await around.carried(answered, user=client, peer="10.9.9.9")
    assert around.pod.holds(foreign) == X  # still what the shared server has under that name


async def test_after_an_overwrite_the_name_means_the_new_content_on_every_server(around: World) -> None:
    await around.uploaded("a.png", X)
    around.move()
    await around.carried("a.png")
    await around.uploaded("a.png", Y, overwrite="true")
    assert around.pod.holds("a.png") == Y
    around.move_back()
    [there] = await around.carried("a.png")
    assert (around.home.holds(there), around.home.holds("a.png")) == (Y, X)


async def test_a_user_keeps_meaning_what_another_overwrote_on_duty(around: World) -> None:
    text = await around.uploaded("input.png", X)
    await around.uploaded("input.png", Y, user=BOB, overwrite="true")
    assert around.home.holds("input.png") == Y
    [alices] = await around.carried(text)
    [bobs] = await around.carried(text, user=BOB)
    assert (around.home.holds(alices), around.home.holds(bobs)) == (X, Y)


# -- files of the shared server


async def test_what_nobody_uploaded_means_the_shared_servers_file(around: World) -> None:
    (around.home.inputs / "example.png").write_bytes(X)
    (around.pod.inputs / "example.png").write_bytes(Y)
    around.move()
    assert await around.carried("example.png") == ["example (1).png"]
    assert around.pod.holds("example (1).png") == X


async def test_a_shared_file_that_changed_is_brought_again_and_one_that_did_not_is_not(around: World) -> None:
    (around.home.inputs / "a.png").write_bytes(X)
    around.move()
    for _ in range(2):
        assert await around.carried("a.png") == ["a.png"]
    assert around.pod.uploads() == 1
    (around.home.inputs / "a.png").write_bytes(Y)
    [text] = await around.carried("a.png")
    assert around.pod.holds(text) == Y
    assert (around.pod.uploads(), around.home.reads()) == (2, 3)


async def test_a_shared_file_that_was_deleted_is_still_what_the_pod_has(around: World) -> None:
    (around.home.inputs / "a.png").write_bytes(X)
    around.move()
    await around.carried("a.png")
    (around.home.inputs / "a.png").unlink()
    assert (await around.answer_to("a.png"))[0] == 200


async def test_a_missing_file_gets_comfyuis_own_answer(around: World) -> None:
    around.move()
    status, answer = await around.answer_to("nowhere.png")
    assert status == 400
    assert "Invalid image file: nowhere.png" in str(answer["node_errors"])


async def test_a_file_that_only_the_pod_has_is_left_as_it_is(around: World) -> None:
    around.move()
    (around.pod.inputs / "own.png").write_bytes(X)
    assert await around.carried("own.png") == ["own.png"]


@pytest.mark.parametrize(
    "text",
    ["../a.png", "/etc/passwd", "private-k3/../../a.png [output]", "a\\b.png", "", "x\n.png", "[input]"],
)
async def test_a_path_trick_is_left_to_comfyui_and_asked_of_nobody(around: World, text: str) -> None:
    around.move()
    (around.home.inputs / "a.png").write_bytes(X)
    await around.carried("warm.png")
    around.home.simulator.requests.clear()
    assert await around.carried(text) == [text]
    assert not around.home.simulator.requests


async def test_a_list_of_files_in_one_input_is_carried_whole(around: World) -> None:
    for name in ("a.png", "b.png"):
        await around.uploaded(name, X)
    (around.pod.inputs / "b.png").write_bytes(Y)
    around.move()
    document: dict[str, Any] = {
        "prompt": {
            "1": {"class_type": "LoadImage", "inputs": {"image": {"__value__": ["a.png", "b.png", "c.png"]}}},
            "2": {
                "class_type": "Load3D",
                "inputs": {"image": {"image": "a.png [input]", "mask": "", "n": 1}},
            },
        }
    }
    sent = await around.inputs.carry(ALICE, document, around.pod.backend)
    assert sent["prompt"]["1"]["inputs"]["image"] == {"__value__": ["a.png", "b (1).png", "c.png"]}
    assert sent["prompt"]["2"] is document["prompt"]["2"]


# -- outputs as inputs


async def test_an_output_of_the_pod_is_named_as_the_pod_knows_it(around: World) -> None:
    around.move()
    (around.pod.simulator.folders.output / "x.png").write_bytes(X)
    assert await around.carried("private-k3/x.png [output]") == ["x.png [output]"]


@pytest.mark.parametrize("is_on_pod", [False, True])
async def test_where_others_are_hidden_only_ones_own_outputs_can_be_inputs(
    tmp_path: Path, is_on_pod: bool
) -> None:
    async with world(tmp_path, visibility=Visibility(Isolation.FULL)) as around:
        output = {"images": [{"filename": "x.png", "subfolder": "", "type": "output"}]}
        around.files.seen(BOB.key, around.home.backend, output)
        (around.home.simulator.folders.output / "x.png").write_bytes(X)
        if is_on_pod:
            around.move()
        for name in ("x.png", "no-such.png"):
            with pytest.raises(PromptRefused) as refused:
                await around.carried(f"{name} [output]")
            assert refused.value.refusal.status == 400
            assert refused.value.refusal.details == f"Invalid image file: {name}"
        around.files.seen(ALICE.key, around.home.backend, output)
        [told] = await around.carried("x.png [output]")
        assert told.startswith("carried/") is is_on_pod


async def test_where_others_are_hidden_no_name_leads_out_of_its_folder(tmp_path: Path) -> None:
    async with world(tmp_path, visibility=Visibility(Isolation.FULL)) as around:
        await around.carried("warm.png [input]")
        with pytest.raises(PromptRefused, match="validation"):
            await around.carried("../output/x.png [input]")


async def test_an_output_of_home_is_brought_to_the_pod_as_an_input(around: World) -> None:
    around.move()
    (around.home.simulator.folders.output / "sub").mkdir()
    (around.home.simulator.folders.output / "sub/x.png").write_bytes(X)
    (around.home.simulator.folders.temp / "x.png").write_bytes(Y)
    first, second = await around.carried("sub/x.png [output]", "x.png [temp]")
    assert first == f"carried/{sha256(X)[:32]}/x.png [input]"
    assert (around.pod.holds(first), around.pod.holds(second)) == (X, Y)
    assert (await around.answer_to("sub/x.png [output]"))[0] == 200
    assert around.pod.uploads() == 2


async def test_an_output_whose_server_has_left_the_pool_is_no_other_servers_of_that_name(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, plain=False) as around:
        (around.home.simulator.folders.output / "x.png").write_bytes(X)
        with pytest.raises(PromptRefused) as refused:
            await around.carried("x.png [output]")
        assert refused.value.refusal.details == "Invalid image file: x.png"


async def test_an_output_of_the_pod_is_brought_to_duty_while_it_drains(around: World) -> None:
    around.move()
    (around.pod.simulator.folders.output / "x.png").write_bytes(X)
    around.routes.retire_private(ALICE)
    [text] = await around.carried("private-k3/x.png [output]")
    assert around.home.holds(text) == X


async def test_an_output_of_somebody_elses_pod_is_nobodys(around: World) -> None:
    around.move()
    (around.pod.simulator.folders.output / "x.png").write_bytes(X)
    text = "private-k3/x.png [output]"
    assert await around.carried(text, user=BOB) == [text]
    assert around.home.uploads() == 0


class Vault:
    """One kept file of Alice, and moods."""

    def __init__(self) -> None:
        self.chunks_told = [X[:10], X[10:]]
        self.failure: Exception | None = None

    def holds(self, user_key: str, shown: FileName) -> bool:
        return user_key == ALICE.key and shown.subfolder == "private-old"

    async def find(self, user_key: str, shown: FileName) -> Any:
        if isinstance(self.failure, StoreUnavailable):
            raise self.failure
        if not self.holds(user_key, shown) or shown.filename != "x.png":
            return None
        return type("Stored", (), {"sha256": sha256(X), "size_bytes": len(X)})()

    async def chunks(self, _stored: Any) -> AsyncIterator[bytes]:
        if self.failure is not None:
            raise self.failure
        for chunk in self.chunks_told:
            yield chunk


async def test_an_output_of_a_pod_that_is_gone_comes_from_the_vault(tmp_path: Path) -> None:
    vault = Vault()
    async with world(tmp_path, vault=vault) as around:
        [text] = await around.carried("private-old/x.png [output]")
        assert around.home.holds(text) == X
        assert await around.carried("private-old/other.png [output]") == ["private-old/other.png [output]"]
        assert await around.carried("private-old/x.png [output]", user=BOB) == ["private-old/x.png [output]"]
        vault.failure = FileNotFoundError()
        assert await around.carried("private-old/x.png [output]") == [text]  # the gateway has it still


@pytest.mark.parametrize(
    ("failure", "status"),
    [(StoreUnavailable("away"), 503), (StorageUnavailable("broken"), 507), (FileNotFoundError(), None)],
)
async def test_a_vault_that_cannot_be_read_is_said(
    tmp_path: Path, failure: Exception, status: int | None
) -> None:
    vault = Vault()
    vault.failure = failure
    async with world(tmp_path, vault=vault) as around:
        text = "private-old/x.png [output]"
        if status is None:
            assert await around.carried(text) == [text]
            return
        with pytest.raises(PromptRefused) as caught:
            await around.carried(text)
        assert caught.value.refusal.status == status


# -- a pool of shared servers


async def test_in_a_pool_files_are_carried_between_shared_servers(tmp_path: Path) -> None:
    async with world(tmp_path, duties=2) as around:
        home, second = around.duty
        (home.inputs / "a.png").write_bytes(X)
        (second.inputs / "b.png").write_bytes(Y)
        assert await around.carried("a.png", "b.png", "none.png") == ["a.png", "b.png", "none.png"]
        assert second.holds("a.png") == X
        (home.inputs / "b.png").write_bytes(X)
        assert await around.carried("b.png") == ["b.png"]
        assert second.holds("b.png") == Y
        assert (home.uploads(), second.uploads()) == (0, 1)


async def test_in_a_pool_an_output_is_known_by_the_servers_alias(tmp_path: Path) -> None:
    async with world(tmp_path, duties=2) as around:
        home, second = around.duty
        (home.simulator.folders.output / "x.png").write_bytes(X)
        (second.simulator.folders.output / "x.png").write_bytes(Y)
        first, own = await around.carried("x.png [output]", "server-1/x.png [output]")
        assert (second.holds(first), own, second.holds(own)) == (X, "x.png [output]", Y)
        [there] = await around.carried("server-1/x.png [output]", user=BOB)
        assert home.holds(there) == Y


# -- prompts of before


def accepted(around: World, prompt_id: str, **changes: Any) -> None:
    around.ledger.accept(
        PromptRecord(
            prompt_id, ALICE.key, "", around.home.backend.id, accepted_at=around.clock.now(), **changes
        )
    )


async def test_a_replay_means_what_the_prompt_meant_when_it_came(around: World) -> None:
    around.move()
    await around.uploaded("a.png", X)
    await around.carried("a.png", prompt_id="p1")
    accepted(around, "p1")
    await around.uploaded("a.png", Y, overwrite="1", subfolder="")
    await around.pod.stop.aclose()
    around.move_back()
    [replayed] = await around.carried("a.png", prompt_id="p1")
    [new] = await around.carried("a.png", prompt_id="p2")
    assert (around.home.holds(replayed), around.home.holds(new)) == (X, Y)


async def test_a_replay_means_the_same_after_a_restart_of_the_gateway(around: World) -> None:
    around.move()
    await around.uploaded("a.png", X)
    accepted_at = around.clock.now()
    await asyncio.sleep(0.002)
    await around.uploaded("a.png", Y, overwrite="1")
    await around.tasks.aclose()
    await around.build()
    around.ledger.accept(PromptRecord("p1", ALICE.key, "", "gw-alice-k3", accepted_at=accepted_at))
    around.move_back()
    [replayed] = await around.carried("a.png", prompt_id="p1")
    assert around.home.holds(replayed) == X


async def test_an_id_used_again_after_a_refusal_means_what_is_meant_now(around: World) -> None:
    around.move()
    await around.uploaded("a.png", X)
    await around.carried("a.png", prompt_id="p1")
    await around.uploaded("a.png", Y, overwrite="true")
    [text] = await around.carried("a.png", prompt_id="p1")
    assert around.pod.holds(text) == Y


async def test_a_file_is_awaited_until_its_prompt_has_ended(around: World) -> None:
    backend, file = around.home.backend, named("a.png")
    await around.uploaded("a.png", X)
    await around.carried("a.png", prompt_id="p1")
    assert around.inputs.is_awaited(backend, file)  # on its way
    accepted(around, "p1")
    assert around.inputs.is_awaited(backend, file)
    assert not around.inputs.is_awaited(around.pod.backend, file)
    assert not around.inputs.is_awaited(backend, named("b.png"))
    around.ledger.end("p1", Outcome.DONE)
    assert not around.inputs.is_awaited(backend, file)
    accepted(around, "of before a restart")
    assert around.inputs.is_awaited(backend, file)
    await around.inputs.carry(ALICE, {"prompt": {}, "prompt_id": "of before a restart"}, backend)
    assert not around.inputs.is_awaited(backend, file)


async def test_a_pod_that_lost_its_files_gets_them_again(around: World) -> None:
    text = await around.uploaded("a.png", X)
    around.move()
    document = load_image(text, prompt_id="p1")
    await around.inputs.carry(ALICE, document, around.pod.backend)
    assert not await around.inputs.doubt(ALICE, document, around.pod.backend)
    (around.pod.inputs / "a.png").unlink()
    assert not await around.inputs.doubt(ALICE, document, around.home.backend)
    assert not await around.inputs.doubt(ALICE, load_image(text), around.pod.backend)
    assert await around.inputs.doubt(ALICE, document, around.pod.backend)
    await around.inputs.carry(ALICE, document, around.pod.backend)
    assert around.pod.holds("a.png") == X
    around.pod.simulator.mood.dead = True
    assert not await around.inputs.doubt(ALICE, document, around.pod.backend)


# -- what goes wrong


async def refused(around: World, text: str) -> PromptRefused:
    with pytest.raises(PromptRefused) as caught:
        await around.carried(text)
    return caught.value


async def test_a_client_that_goes_away_does_not_stop_what_others_wait_for(around: World) -> None:
    text = await around.uploaded("a.png", X)
    around.move()
    await around.carried("warm.png")
    around.pod.simulator.mood.delay_s = 0.1
    gone = asyncio.create_task(around.carried(text))
    stays = asyncio.create_task(around.carried(text))
    await wait_for(lambda: around.activity.in_flight(around.pod.backend.id), "the transfer")
    gone.cancel()
    assert await stays == [text]
    assert (around.pod.uploads(), around.pod.holds(text)) == (1, X)
    assert around.activity.in_flight(around.pod.backend.id) == 0


async def test_a_pod_that_dies_meanwhile_gives_a_clear_refusal_and_nothing_is_lost(around: World) -> None:
    text = await around.uploaded("a.png", X)
    around.move()
    await around.carried("warm.png")
    around.pod.simulator.mood.dead, around.pod.simulator.mood.dead_by = True, "close"
    refusal = (await refused(around, text)).refusal
    assert (refusal.status, refusal.type, refusal.retry_after_s) == (503, "input_unavailable", 5)
    assert "127.0.0.1" not in str(refusal)
    around.move_back()
    assert await around.carried(text) == [text]


async def test_a_full_disk_is_said_as_507(around: World, tmp_path: Path) -> None:
    (around.home.inputs / "a.png").write_bytes(X)
    around.move()
    around.store._reserve_bytes = 1 << 60
    assert (await refused(around, "a.png")).refusal.status == 507
    around.store._reserve_bytes = 0
    assert await around.carried("a.png") == ["a.png"]


async def test_a_store_that_somebody_emptied_is_filled_again_from_the_server_that_has_it(
    around: World,
) -> None:
    text = await around.uploaded("a.png", X)
    around.move()
    around.store.path(sha256(X)).unlink()
    assert (await refused(around, text)).refusal.status in {503, 507}
    assert await around.carried(text) == [text]
    assert around.pod.holds(text) == X


async def test_a_content_that_is_nowhere_is_left_to_comfyui(around: World) -> None:
    around.move()
    text = await around.uploaded("a.png", X)
    await around.store.remove(sha256(X))
    await around.pod.stop.aclose()
    around.move_back()
    assert await around.carried(text) == [text]
    assert (await around.answer_to(text))[0] == 400


async def test_a_shared_server_that_is_away_is_said_unless_the_content_is_known(around: World) -> None:
    (around.home.inputs / "a.png").write_bytes(X)
    around.move()
    await around.carried("a.png")
    around.home.simulator.mood.dead = True
    assert await around.carried("a.png") == ["a.png"]
    assert (await refused(around, "b.png")).refusal.status == 503
    (around.pod.inputs / "own.png").write_bytes(Y)
    assert await around.carried("own.png") == ["own.png"]
    assert (await refused(around, "x.png [output]")).refusal.status == 503


async def test_a_file_that_was_replaced_where_it_should_come_from_is_not_taken_for_it(around: World) -> None:
    text = await around.uploaded("a.png", X)
    await around.store.remove(sha256(X))
    (around.home.inputs / "a.png").write_bytes(Y)
    around.move()
    assert await around.carried(text) == [text]
    assert around.pod.uploads() == 0


async def test_a_server_that_tells_nothing_of_its_inputs_is_sent_the_prompt_as_it_is(around: World) -> None:
    text = await around.uploaded("a.png", X)
    around.move()
    around.pod.simulator.mood.dead = True
    assert await around.carried(text) == [text]


async def test_a_server_that_refuses_the_size_is_said_as_413(around: World) -> None:
    around.move()
    big = b"x" * (101 * 1024 * 1024)
    (around.home.inputs / "big.png").write_bytes(big)
    refusal = (await refused(around, "big.png")).refusal
    assert (refusal.status, refusal.type) == (413, "input_too_large")


# -- who shows a file


async def test_an_upload_is_shown_by_the_current_server_then_by_another_then_by_the_gateway(
    around: World,
) -> None:
    file = named("a.png")
    assert around.inputs.find(ALICE, file) == Unknown()
    (around.pod.inputs / "a.png").write_bytes(Y)
    await around.uploaded("a.png", X)
    assert around.inputs.find(ALICE, file) == OnBackend(around.home.backend, file)
    around.move()
    assert around.inputs.find(ALICE, file) == OnBackend(around.home.backend, file)
    await around.carried("a.png")
    assert around.inputs.find(ALICE, file) == OnBackend(around.pod.backend, named("a (1).png"))
    pods = named("p.png")
    await around.uploaded("p.png", X + b"p")
    around.move_back()
    assert around.inputs.find(ALICE, pods) == InStore(ALICE.key, pods)
    content = around.inputs.kept(ALICE.key, pods)
    assert content is not None
    assert around.store.path(content.sha256).read_bytes() == X + b"p"
    await around.store.remove(content.sha256)
    assert around.inputs.find(ALICE, pods) == Unknown()
    assert around.inputs.kept(ALICE.key, pods) is None
    assert around.inputs.kept(None, pods) is None
    assert around.inputs.kept(ALICE.key, FileName("../x")) is None


async def test_a_user_with_a_pod_is_shown_the_shared_servers_inputs(around: World) -> None:
    file = named("shared.png")
    assert around.inputs.find(ALICE, file) == Unknown()
    around.move()
    assert around.inputs.find(ALICE, file) == OnBackend(around.home.backend, file)
    assert around.inputs.find(ALICE, named("x.png [output]")) == Unknown()
    assert around.inputs.find(ALICE, FileName("..")) == Unknown()
    around.inputs.note_own_names(around.pod.backend, frozenset({"own.png"}))
    assert around.inputs.find(ALICE, named("own.png")) == Unknown()
    around.inputs.forget_place(around.pod.backend.id)
    assert around.inputs.find(ALICE, named("own.png")) == OnBackend(around.home.backend, named("own.png"))


async def test_lists_are_merged_for_those_whose_files_are_elsewhere(around: World) -> None:
    assert around.inputs.takes_uploads()
    assert not around.inputs.has_lists_to_merge(ALICE)
    await around.uploaded("a.png", X)
    assert not around.inputs.has_lists_to_merge(ALICE)
    around.move()
    assert around.inputs.has_lists_to_merge(ALICE)
    await around.uploaded("b.png", X)
    around.move_back()
    assert around.inputs.has_lists_to_merge(ALICE)
    assert not around.inputs.has_lists_to_merge(BOB)
    await around.carried("b.png")
    assert not around.inputs.has_lists_to_merge(ALICE)
