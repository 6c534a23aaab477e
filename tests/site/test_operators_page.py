"""The operator's page in a real Chromium, before the real site over the fakes."""

import pytest
from playwright.async_api import expect

from comfy_gateway.core.life.session import State
from comfy_gateway.core.people.roles import Role
from comfy_gateway.core.people.users import IdKind, UserId
from tests.service.world import ALICE, BOB
from tests.site.api_stand import BOSS, api, kind
from tests.site.operators_stand import operators_page

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(120)]


async def test_operators_alone_get_the_page_and_its_files() -> None:
    async with api() as ask:
        for path in ("/gateway", "/gateway/", "/gateway/page/main.js"):
            status, refusal = await ask("GET", path)
            assert (status, kind(refusal)) == (403, "operators_only")
        headers = ask.headers(BOSS, Role.OPERATOR)
        async with ask.http.get(f"{ask.url}/gateway", headers=headers, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (308, "/gateway/")
        async with ask.http.get(f"{ask.url}/gateway/page/main.js", headers=headers) as answer:
            tag = answer.headers["ETag"]
        known = {**headers, "If-None-Match": tag}
        async with ask.http.get(f"{ask.url}/gateway/page/main.js", headers=known) as answer:
            assert answer.status == 304
        for name in ("page.py", "..%2Fpage.py", "nothing.js"):
            async with ask.http.get(f"{ask.url}/gateway/page/{name}", headers=headers) as answer:
                assert answer.status == 404


async def test_what_is_there_at_its_load_is_readable_without_scripts() -> None:
    async with api() as ask:
        ask.world.prompts(BOB, 1, is_done=False)
        async with ask.http.get(f"{ask.url}/gateway/", headers=ask.headers(BOSS, Role.OPERATOR)) as answer:
            policy, text = answer.headers["Content-Security-Policy"], await answer.text()
        assert "'unsafe" not in policy
        assert "default-src 'none'" in policy
        assert ">bob</b>" in text
        assert "duty-0" in text
        assert "<script>" not in text
        assert " style=" not in text


async def test_sessions_come_change_and_go_without_a_reload() -> None:
    async with operators_page() as seen:
        await expect(seen.page.locator("#link")).to_have_text("Live")
        await expect(seen.page.get_by_text("All quiet.")).to_be_visible()
        await expect(seen.page.locator("#duty li")).to_have_count(1)
        pod = await seen.world.ready()
        seen.world.prompts(ALICE, 1, is_done=False)
        seen.world.servers.mood(pod.id).utilization_percent = 40.0
        await seen.pass_time(61)
        row = seen.row("alice")
        await expect(row).to_contain_text("ready")
        await expect(row).to_contain_text("RTX 4090")
        await expect(row).to_contain_text("40 %")
        await expect(row).to_contain_text("kept: 1 prompts in flight")
        await expect(seen.page.locator("#tile-pods")).to_have_text("1")
        seen.world.prompts(BOB, 1, is_done=False)
        await seen.pass_time()
        await expect(seen.row("bob")).to_contain_text("shared")
        await seen.page.get_by_label("Filter sessions").fill("4090")
        await expect(seen.row("bob")).to_be_hidden()
        await expect(seen.page.locator("#session-count")).to_have_text("1 of 2")
        assert seen.watch.errors == {}


@pytest.mark.long
async def test_the_names_of_users_are_words_and_no_markup() -> None:
    async with operators_page() as seen:
        name = "<img src=x onerror=alert(1)>"
        user = UserId(IdKind.NAMED, name)
        seen.world.prompts(user, 1, is_done=False)
        await seen.pass_time()
        await expect(seen.page.locator("#session-rows b")).to_have_text(name)
        await seen.page.reload()
        await expect(seen.page.locator("#session-rows b")).to_have_text(name)
        assert await seen.page.locator("#session-rows img").count() == 0


@pytest.mark.long
async def test_with_the_stream_cut_it_asks_says_so_and_recovers() -> None:
    async with operators_page() as seen:
        await expect(seen.page.locator("#link")).to_have_text("Live")
        await seen.context.route("**/api/v1/stream", lambda route: route.abort())
        # What runs already is ended by the gateway, as after a quarter of an hour.
        await seen.pass_time(15 * 60 + 5)
        await expect(seen.page.locator("#link")).to_contain_text("Event stream cut; asking every 5 s")
        seen.world.prompts(BOB, 1, is_done=False)
        await expect(seen.row("bob")).to_be_visible(timeout=20_000)
        await seen.context.unroute("**/api/v1/stream")
        await expect(seen.page.locator("#link")).to_have_text("Live", timeout=45_000)


async def test_an_order_is_confirmed_first_and_a_refusal_is_told() -> None:
    async with operators_page() as seen:
        await seen.world.ready()
        await seen.pass_time()
        await seen.row("alice").get_by_role("button", name="Details").click()
        await expect(seen.page.locator("#log")).to_contain_text("line 1000")
        await seen.page.get_by_role("button", name="Terminate…").click()
        confirm = seen.page.get_by_role("dialog", name="Terminate alice's pod now?")
        await expect(confirm.get_by_role("button", name="Cancel")).to_be_focused()
        await seen.page.keyboard.press("Enter")
        await expect(confirm).to_be_hidden()
        assert seen.world.state() is State.READY
        await seen.page.get_by_role("button", name="Extend…").click()
        await seen.page.get_by_label("Minutes").fill("60")
        await seen.page.get_by_role("button", name="Extend", exact=True).click()
        await expect(seen.page.locator("#toast")).to_have_text("alice's pod stays.")
        assert seen.world.keeping.left_s(seen.world.pod().name) > 50 * 60
        await seen.page.get_by_role("button", name="Terminate…").click()
        await seen.page.get_by_role("button", name="Terminate", exact=True).click()
        await expect(confirm).to_be_hidden()
        await seen.page.keyboard.press("Escape")
        await expect(seen.page.locator("#detail")).to_be_hidden()
        await seen.world.until(State.SHARED)


@pytest.mark.long
async def test_a_pod_is_given_to_somebody_who_is_not_in_the_list() -> None:
    async with operators_page() as seen:
        await seen.page.get_by_text("Give somebody a pod").click()
        await seen.page.get_by_label("User", exact=True).first.fill("bob")
        await seen.page.keyboard.press("Enter")
        await seen.page.get_by_role("button", name="Promote", exact=True).click()
        await expect(seen.page.locator("#toast")).to_have_text("A pod for bob is ordered.")
        await seen.world.until(State.READY, BOB)
        await seen.page.get_by_text("Give somebody a pod").click()
        await seen.page.get_by_text("Give somebody a pod").click()
        await seen.page.get_by_role("button", name="Promote…").click()
        await seen.page.get_by_role("button", name="Promote", exact=True).click()
        await expect(seen.page.locator("#confirm-fault")).not_to_be_empty()


@pytest.mark.long
async def test_records_are_filtered_and_paged() -> None:
    async with operators_page() as seen:
        await seen.world.ready()
        await seen.world.ready(BOB)
        await seen.world.clock.advance(600)
        panel = seen.page.locator("#panel-events")
        await panel.get_by_label("User").fill("bob")
        await panel.get_by_role("button", name="Show").click()
        await expect(panel.locator("tbody")).to_contain_text("bob")
        await expect(panel.locator("tbody")).not_to_contain_text("alice")
        await seen.page.get_by_role("tab", name="Events").press("ArrowRight")
        await expect(seen.page.locator("#panel-spend tbody tr")).to_have_count(2)
        await seen.page.get_by_role("tab", name="Prompts").click()
        prompts = seen.page.locator("#panel-prompts")
        await expect(prompts.locator("tbody tr")).to_have_count(10)
        await expect(prompts.locator("tbody")).to_contain_text("shared · duty-0")
        seen.world.memory.is_down = True
        await seen.page.get_by_role("tab", name="Spend").click()
        await expect(seen.page.locator("#panel-spend [data-note]")).to_contain_text("database")
