"""A pod is ended until the cloud confirms it, and only ours are."""

import pytest

from comfy_gateway.core.pods.podname import PodNames
from comfy_gateway.service.life.endings import MOST_WAIT_S, Endings
from comfy_gateway.service.money.alarms import log_alarm
from comfy_gateway.service.tasks import Tasks
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud
from tests.service.world import KEYS, TAG

OURS = "comfy-gw-alice1234-a1"


@pytest.fixture
def cloud(clock: FakeClock) -> FakeCloud:
    return FakeCloud(clock)


@pytest.fixture
def endings(cloud: FakeCloud, clock: FakeClock) -> Endings:
    return Endings(cloud, PodNames(TAG, KEYS), clock, log_alarm)


class Ending:
    """``Endings.end`` in a task of its own, so that the test can move the clock."""

    def __init__(self, endings: Endings, pod_id: str, name: str = OURS) -> None:
        self.tasks = Tasks("test")
        self.found: str | None = None
        self._endings = endings
        self.tasks.start(self._run(pod_id, name), name="end")

    async def _run(self, pod_id: str, name: str) -> None:
        self.found = await self._endings.end(pod_id, name)


@pytest.mark.parametrize("name", ["comfy-gw-eu-alice-a1", "other", "", "comfy-gw-alice"])
async def test_a_foreign_name_is_refused_before_anything_is_sent(
    cloud: FakeCloud, endings: Endings, name: str
) -> None:
    pod = cloud.make(name)
    with pytest.raises(ValueError, match="not one of ours"):
        await endings.end(pod.id, name)
    with pytest.raises(ValueError, match="not one of ours"):
        await endings.ask_once(pod.id, name)
    assert not cloud.terminations
    assert cloud.lists == 0


async def test_the_end_is_said_only_when_it_is_confirmed(
    cloud: FakeCloud, endings: Endings, clock: FakeClock
) -> None:
    pod = cloud.make(OURS)
    ending = Ending(endings, pod.id)
    await clock.settle()
    assert cloud.terminations == [OURS]
    assert ending.found is None
    await clock.advance(2)
    assert ending.found == "the cloud confirms that the pod is gone"


async def test_a_list_that_still_has_the_pod_is_believed(
    cloud: FakeCloud, endings: Endings, clock: FakeClock
) -> None:
    pod = cloud.make(OURS)

    async def nothing(_pod_id: str) -> None:
        return None

    real, cloud.get_pod = cloud.get_pod, nothing  # type: ignore[method-assign, assignment]
    ending = Ending(endings, pod.id)
    await clock.advance(30)
    assert ending.found is None
    cloud.get_pod = real  # type: ignore[method-assign]
    await clock.advance(120)
    assert ending.found is not None
    assert not cloud.living()


async def test_calls_that_fail_are_repeated_for_ever_and_not_too_often(
    cloud: FakeCloud, endings: Endings, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    pod = cloud.make(OURS)
    cloud.is_failing = True
    ending = Ending(endings, pod.id)
    await clock.advance(3600)
    failures = [record for record in caplog.records if "not confirmed gone" in record.getMessage()]
    assert 3600 / MOST_WAIT_S <= len(failures) <= 3600 / MOST_WAIT_S + 10
    assert ending.found is None
    cloud.is_failing = False
    await clock.advance(2 * MOST_WAIT_S)
    assert ending.found is not None


async def test_every_fifth_try_raises_an_alarm(
    cloud: FakeCloud, endings: Endings, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    pod = cloud.make(OURS)
    cloud.swallowed_terminations = 12
    Ending(endings, pod.id)
    await clock.advance(1200)
    alarms = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [line.split(" tries")[0].split()[-1] for line in alarms] == ["5", "10"]
    assert not cloud.living()


async def test_a_pod_of_another_name_under_our_id_is_left_alone(
    cloud: FakeCloud, endings: Endings, clock: FakeClock
) -> None:
    pod = cloud.make("renamed-by-a-person")
    ending = Ending(endings, pod.id)
    await clock.settle()
    assert ending.found == "the pod has another name now and is left alone"
    assert not cloud.terminations


async def test_asking_once_does_not_wait(cloud: FakeCloud, endings: Endings, clock: FakeClock) -> None:
    pod = cloud.make(OURS)
    cloud.swallowed_terminations = 1
    assert await endings.ask_once(pod.id, OURS)
    assert cloud.terminations == [OURS]
    assert cloud.living() == [pod]
    assert await endings.ask_once("pod99", OURS)
    cloud.is_failing = True
    assert not await endings.ask_once(pod.id, OURS)
    assert clock.sleepers == 0
