"""What is said and done about pods when the gateway ends."""

from dataclasses import replace

import pytest

from comfy_gateway.service.life.farewell import Farewell
from tests.service.world import ALICE, BOB, World


def farewell(world: World, *, is_ending: bool) -> Farewell:
    return Farewell(world.sessions, world.endings, world.vault, is_ending=is_ending)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.endswith("farewell")]


async def test_each_pod_that_lives_on_has_one_line_with_its_price(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    alices, bobs = await world.ready(ALICE), await world.ready(BOB)
    await farewell(world, is_ending=False).say()
    assert lines(caplog) == [
        f"RunPod session named:alice: pod {alices.name} lives on at $0.50 an hour",
        f"RunPod session named:bob: pod {bobs.name} lives on at $0.50 an hour",
    ]
    assert len(world.cloud.living()) == 2


async def test_nothing_is_said_when_there_is_no_pod(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await farewell(world, is_ending=False).say()
    await farewell(world, is_ending=True).say()
    assert lines(caplog) == []


@pytest.mark.parametrize("is_ending", [False, True])
async def test_an_order_without_an_answer_may_live_on(
    world: World, caplog: pytest.LogCaptureFixture, is_ending: bool
) -> None:
    world.cloud.create_s = 10
    world.burst()
    await world.clock.settle()
    await farewell(world, is_ending=is_ending).say()
    [line] = lines(caplog)
    assert "may live on, for its order is not answered yet at an unknown price an hour" in line


async def test_pods_are_asked_to_end_all_at_once_where_that_is_wanted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.ready(ALICE)
    await world.ready(BOB)
    await farewell(world, is_ending=True).say()
    assert not world.cloud.living()
    assert [line.rpartition(" was asked to end")[1] for line in lines(caplog)] == [" was asked to end"] * 2


async def test_a_pod_that_cannot_be_ended_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    pod = await world.ready()
    world.cloud.is_failing = True
    await farewell(world, is_ending=True).say()
    assert lines(caplog) == [
        f"RunPod session named:alice: pod {pod.name} lives on, for it could not be ended at $0.50 an hour"
    ]


async def test_a_pod_of_another_tag_does_not_keep_the_others_from_ending(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    other = await world.ready(ALICE)
    ours = await world.ready(BOB)
    session = world.sessions.get(ALICE)
    assert session.pod is not None
    other.name = "oldtag-alice-a1"
    world.memory.rows[ALICE] = replace(session, pod=replace(session.pod, name=other.name))
    await world.restart()
    await farewell(world, is_ending=True).say()
    assert world.cloud.living() == [other]
    assert ours.ended_s is not None
    assert f"pod {other.name} lives on, for pod '{other.name}' is not one of ours" in "\n".join(lines(caplog))
