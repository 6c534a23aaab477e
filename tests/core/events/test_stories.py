from dataclasses import replace
from typing import Any

from comfy_gateway.core.events.frames import Message
from comfy_gateway.core.events.stories import Stories
from comfy_gateway.core.prompts.prompts import Outcome, PromptRecord

DUTY = "duty-0"
POD = "pod"


def record(outcome: Outcome = Outcome.ACCEPTED, backend_id: str = DUTY, prompt_id: str = "p") -> PromptRecord:
    return PromptRecord(prompt_id, "named:alice", "tab", backend_id, outcome)


def say(kind: str, prompt_id: str | None = "p", **data: Any) -> Message:
    return Message(kind, data if prompt_id is None else {"prompt_id": prompt_id, **data})


def release(prompt_id: str = "p") -> Message:
    return say("executing", prompt_id, node=None)


def test_an_accepted_prompt_needs_its_server_until_the_release() -> None:
    stories = Stories()
    stories.note(record())
    assert stories.backends_needed() == {DUTY}

    stories.hear(DUTY, say("execution_start"))
    stories.hear(DUTY, say("execution_success"))
    stories.note(record(Outcome.DONE))
    assert stories.backends_needed() == {DUTY}

    stories.hear(DUTY, release())
    assert stories.backends_needed() == set()
    assert stories.open_on(DUTY) == []


def test_a_prompt_that_others_ended_needs_no_socket_but_may_still_be_told() -> None:
    stories = Stories()
    stories.note(record())
    stories.note(record(Outcome.INTERRUPTED))

    assert stories.backends_needed() == set()
    assert stories.open_on(DUTY) == ["p"]


def test_a_prompt_of_somebody_else_needs_no_socket() -> None:
    stories = Stories()

    assert stories.hear(DUTY, say("execution_start"))

    assert stories.backends_needed() == set()
    assert stories.open_on(DUTY) == []


def test_events_may_overtake_the_acceptance() -> None:
    stories = Stories()
    stories.hear(DUTY, say("execution_start"))
    stories.hear(DUTY, say("executed", node="9"))
    stories.hear(DUTY, say("progress", value=1))

    story = stories.note(record())

    assert story.has_begun
    assert story.executed == {"9"}
    assert stories.backends_needed() == {DUTY}


def test_a_whole_story_may_overtake_the_acceptance() -> None:
    stories = Stories()
    for message in (say("execution_start"), say("execution_success"), release()):
        stories.hear(DUTY, message)

    stories.note(record(Outcome.DONE))

    assert stories.open_on(DUTY) == []


def test_what_the_server_says_after_our_own_ending_is_not_passed_on() -> None:
    stories = Stories()
    stories.note(record())
    stories.end("p")

    assert not stories.hear(DUTY, say("execution_start"))
    assert not stories.hear(DUTY, say("execution_success"))
    assert not stories.hear(DUTY, release())
    assert stories.open_on(DUTY) == []


def test_what_another_server_says_about_a_prompt_of_ours_is_not_passed_on() -> None:
    stories = Stories()
    stories.note(record())
    stories.note(replace(record(backend_id=POD), replays=1))

    assert not stories.hear(DUTY, say("executed", node="9"))
    assert not stories.hear(DUTY, say("execution_success"))
    assert not stories.hear(DUTY, release())

    assert stories.hear(POD, say("execution_start"))
    assert stories.hear(POD, say("execution_success"))
    assert stories.backends_needed() == {POD}


def test_a_prompt_that_is_submitted_again_to_the_same_server_is_told_anew() -> None:
    stories = Stories()
    stories.note(record())
    stories.hear(DUTY, say("execution_start"))
    stories.hear(DUTY, say("executed", node="9"))

    story = stories.note(replace(record(), replays=1))

    assert story.executed == set()
    assert not story.has_started
    assert stories.open_on(DUTY) == ["p"]


def test_news_about_the_same_run_keep_the_story() -> None:
    stories = Stories()
    stories.note(record())
    stories.hear(DUTY, say("execution_start"))

    assert stories.note(record(Outcome.RUNNING)).has_started


def test_a_second_verdict_is_not_passed_on_but_the_release_is() -> None:
    stories = Stories()
    stories.note(record())

    assert stories.hear(DUTY, say("execution_success"))
    assert not stories.hear(DUTY, say("execution_error"))
    assert stories.hear(DUTY, release())
    assert not stories.hear(DUTY, release())


def test_a_server_that_repeats_itself_about_a_stranger_is_passed_on() -> None:
    stories = Stories()

    assert all(stories.hear(DUTY, message) for message in (say("execution_success"), release()) * 2)


def test_what_is_said_while_nobody_listens_leaves_a_gap_until_the_next_start() -> None:
    stories = Stories()
    for prompt_id in ("begun", "pending"):
        stories.note(record(prompt_id=prompt_id))
    stories.note(record(backend_id=POD, prompt_id="elsewhere"))
    stories.hear(DUTY, say("execution_start", "begun"))

    def gaps() -> list[str]:
        return [one for one in stories.open_prompts() if (story := stories.find(one)) and story.has_gap]

    assert stories.cut(DUTY) == []
    assert set(gaps()) == {"begun", "pending"}

    stories.hear(DUTY, say("execution_start", "pending"))
    assert gaps() == ["begun"]


def test_a_prompt_noted_while_nobody_listens_has_a_gap() -> None:
    assert Stories().note(record(), is_heard=False).has_gap


def test_after_the_verdict_a_lost_socket_takes_only_the_release() -> None:
    stories = Stories()
    stories.note(record())
    stories.hear(DUTY, say("execution_success"))

    assert stories.cut(DUTY) == ["p"]
    stories.end("p")
    assert stories.open_prompts() == []


def test_a_prompt_id_that_is_used_again_begins_anew() -> None:
    stories = Stories()
    stories.note(record())
    stories.hear(DUTY, say("executed", node="9"))
    stories.hear(DUTY, release())

    story = stories.note(record())

    assert story.executed == set()
    assert stories.backends_needed() == {DUTY}


def test_a_second_start_on_the_same_server_begins_anew_and_stays_ours() -> None:
    stories = Stories()
    stories.note(record())
    stories.hear(DUTY, say("execution_start"))
    stories.hear(DUTY, say("executed", node="9"))

    stories.hear(DUTY, say("execution_start"))

    story = stories.find("p")
    assert story is not None
    assert story.is_ours
    assert story.executed == set()
    assert stories.open_on(DUTY) == ["p"]


def test_a_prompt_that_moved_is_waited_for_on_its_new_server() -> None:
    stories = Stories()
    stories.note(record())
    stories.note(record(backend_id=POD))

    assert stories.open_on(DUTY) == []
    assert stories.open_on(POD) == ["p"]


def test_a_message_about_no_prompt_is_passed_on() -> None:
    stories = Stories()

    assert stories.hear(DUTY, say("progress", None))
    assert stories.find("p") is None


def test_old_stories_are_forgotten_but_never_an_open_one() -> None:
    stories = Stories(max_stories=2)
    stories.note(record(prompt_id="open"))
    for prompt_id in ("a", "b", "c"):
        stories.hear(DUTY, say("execution_start", prompt_id))
        stories.hear(DUTY, release(prompt_id))

    assert stories.find("open") is not None
    assert stories.find("a") is None
    assert stories.find("c") is not None


def test_open_stories_may_exceed_the_bound() -> None:
    stories = Stories(max_stories=1)
    for prompt_id in ("a", "b"):
        stories.note(record(prompt_id=prompt_id))

    assert stories.open_on(DUTY) == ["a", "b"]
