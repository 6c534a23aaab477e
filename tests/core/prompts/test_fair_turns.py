"""Everybody's prompts get their turn on a shared server."""

import heapq
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_gateway.core.prompts.fair_turns import MOST_AHEAD, FairTurns


class Server:
    """ComfyUI's queue: a heap on numbers, one prompt at a time."""

    def __init__(self, weight_of: Callable[[str], float] = lambda _user: 1.0) -> None:
        self.turns = FairTurns(weight_of)
        self.heap: list[tuple[float, str, str]] = []
        self.ran: list[tuple[str, str]] = []
        self.sent = 0

    def send(self, user: str, *, front: bool = False) -> str:
        self.sent += 1
        prompt_id = f"{user}-{self.sent}"
        number = self.turns.place(prompt_id, user, -self.sent if front else self.sent)
        heapq.heappush(self.heap, (number, prompt_id, user))
        return prompt_id

    def begin(self) -> str:
        _, prompt_id, user = heapq.heappop(self.heap)
        self.turns.begun(prompt_id)
        self.ran.append((user, prompt_id))
        return prompt_id

    def run(self, count: int | None = None) -> list[str]:
        before = len(self.ran)
        for _ in range(len(self.heap) if count is None else count):
            self.turns.gone(self.begin())
        return [user for user, _ in self.ran[before:]]

    def ids(self, user: str) -> list[str]:
        return [prompt_id for owner, prompt_id in self.ran if owner == user]


@given(st.integers(0, 19))
def test_the_second_prompt_of_a_newcomer_runs_after_at_most_five_of_who_queued_twenty(done: int) -> None:
    server = Server()
    queued = [server.send("a") for _ in range(20)]
    server.run(done)
    running = server.begin()
    server.send("b")
    server.send("b")
    server.turns.gone(running)
    order = server.run()
    second = [place for place, user in enumerate(order) if user == "b"][1]
    assert order[:second].count("a") <= 4
    assert server.ids("a") == queued


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3)), max_size=80))
def test_the_order_of_ones_own_never_changes(steps: list[tuple[str, int]]) -> None:
    server = Server()
    sent: dict[str, list[str]] = {}
    for user, ran in steps:
        sent.setdefault(user, []).append(server.send(user))
        server.run(min(ran, len(server.heap)))
    server.run()
    assert all(server.ids(user) == ids for user, ids in sent.items())
    assert len(server.turns) == 0


@given(st.lists(st.floats(0.02, 0.6), min_size=50, max_size=50))
def test_fifty_users_finish_alike_in_any_minute(run_s: list[float]) -> None:
    server = Server()
    for number in range(50):
        for _ in range(3):
            server.send(str(number))
    now_s, ended = 0.0, list[tuple[float, str]]()
    while now_s < 130:
        user = server.run(1)[0]
        now_s += run_s[int(user)]
        ended.append((now_s, user))
        server.send(user)
    for start_s in range(0, 70, 10):
        counts = Counter(user for at_s, user in ended if start_s <= at_s < start_s + 60)
        finished = [counts[str(user)] for user in range(50)]
        assert sum(finished) ** 2 / (50 * sum(one * one for one in finished)) >= 0.95


def test_turns_follow_the_weights() -> None:
    server = Server(lambda user: {"a": 3.0, "b": 1.0, "c": 0.5}[user])
    for user in "abc":
        for _ in range(200):
            server.send(user)
    counts = Counter(server.run(180))
    assert counts["a"] == pytest.approx(120, abs=2)
    assert counts["b"] == pytest.approx(40, abs=2)
    assert counts["c"] == pytest.approx(20, abs=2)


def test_long_prompts_of_one_let_everybody_else_have_a_turn_after_each() -> None:
    server = Server()
    for user in ("video", "x", "y"):
        for _ in range(5):
            server.send(user)
    order = server.run()
    assert all(set(order[place : place + 3]) == {"video", "x", "y"} for place in range(0, 15, 3))


@given(st.lists(st.sampled_from("bcd"), max_size=40))
def test_who_waits_is_not_passed_by_ever_new_people(newcomers: list[str]) -> None:
    server = Server()
    for user in "xyz":
        server.send(user)
    for place, user in enumerate(newcomers):
        server.send(f"{user}{place}")
        server.run(1)
    server.run()
    assert {user for user, _ in server.ran[:3]} == set("xyz")


def test_front_goes_before_ones_own_and_passes_nobody() -> None:
    server = Server()
    server.send("a")
    running = server.begin()
    for user in "aaabb":
        server.send(user)
    before = [user for _, _, user in sorted(server.heap)]
    front = server.send("a", front=True)
    order = sorted(server.heap)
    assert next(prompt_id for _, prompt_id, user in order if user == "a") == front
    assert before[0] == order[0][2] == "b", "who was before one's own first stays so"
    server.turns.gone(running)


def test_a_flood_in_front_delays_those_who_wait_by_a_few_prompts_only() -> None:
    server = Server()
    running = server.send("a")
    server.begin()
    for user in "aab":
        server.send(user)
    server.send("b")
    for _ in range(30):
        server.send("a", front=True)
    server.turns.gone(running)
    order = server.run()
    second = [place for place, user in enumerate(order) if user == "b"][1]
    assert order[:second].count("a") <= 2 + MOST_AHEAD


def test_a_flood_in_front_of_ones_own_does_not_delay_a_newcomer() -> None:
    server = Server()
    server.send("a")
    running = server.begin()
    server.send("a")
    fronts = [server.send("a", front=True) for _ in range(20)]
    server.turns.gone(running)
    assert server.begin() == fronts[-1]
    server.send("b")
    server.send("b")
    server.turns.gone(fronts[-1])
    order = server.run()
    second = [place for place, user in enumerate(order) if user == "b"][1]
    assert order[:second].count("a") <= 4


def test_what_is_taken_out_while_it_waits_costs_no_turn() -> None:
    server = Server()
    server.send("b")
    running = server.begin()
    for _ in range(3):
        server.send("b")
    for prompt_id in [server.send("a") for _ in range(20)]:
        server.turns.gone(prompt_id)
        server.heap = [item for item in server.heap if item[1] != prompt_id]
    heapq.heapify(server.heap)
    server.send("a")
    server.turns.gone(running)
    assert server.run(1) == ["a"]


def test_a_queue_that_is_found_goes_on_in_its_order() -> None:
    turns = FairTurns()
    turns.found("a9", "a", 9, 40.5, is_running=False)
    turns.found("a8", "a", 8, 39.5, is_running=False)
    turns.found("b1", "b", 7, 38.0, is_running=True)
    assert turns.place("a10", "a", 10) > 40.5
    assert 38.0 <= turns.place("c", "c", 11) < 39.5
    assert "a9" in turns
    assert turns.count("a") == 3
    turns.gone("b1")
    turns.gone("a8", was_run=True)
    turns.gone("unknown")
    assert 39.5 <= turns.place("d", "d", 12) < 40.5


def test_an_idle_server_begins_anew() -> None:
    server = Server()
    for _ in range(9):
        server.send("a")
    server.run()
    assert server.turns.place("late", "a", 10) == 0


def test_time_goes_on_from_the_servers_own_counter() -> None:
    turns = FairTurns()
    turns.place("p1", "a", 1)
    assert turns.is_alone("p1")
    turns.answered("p1", 5000)
    turns.begun("p1")
    assert turns.place("p2", "a", 2) == 5001
    turns.answered("p1", 5003)  # too late to change what has its place
    assert turns.place("p3", "b", 3) == 5000
    assert not turns.is_alone("p2")
    for prompt_id in ("p1", "p2", "p3"):
        turns.gone(prompt_id, was_run=True)
    assert turns.place("p4", "a", 4) == 5004
    turns.begun("p4")
    turns.answered("p4", 0)
    assert turns.place("p5", "a", 5) == 1
