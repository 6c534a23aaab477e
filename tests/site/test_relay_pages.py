"""The gateway's own messages reach pages that asked for them, and no script."""

from comfy_gateway.core.events import frames
from simulators.comfyui import ComfySimulator, serve
from tests.site.relay_stand import ALICE, BOB, relay_before

TOLD = frames.write("gateway.session", {"text": "Shared GPU"})


async def test_only_sockets_of_the_page_that_asked_hear_our_own_messages() -> None:
    async with serve(ComfySimulator(name="duty")) as served, relay_before(served.url) as stand:
        page, script = await stand.connect(sid="page"), await stand.connect(sid="script")
        for client in (page, script):
            await client.hear_kind("status")
        assert not stand.relay.tell_pages(ALICE, TOLD)
        assert stand.relay.mark_page(ALICE, "page")
        assert stand.relay.tell_pages(ALICE, TOLD)
        assert await page.hear_kind("gateway.session") == {"text": "Shared GPU"}
        # What comes behind it shows that nothing was on its way to the script.
        await stand.prompt({"1": {"class_type": "EmptyImage", "inputs": SMALL}, "9": SAVE}, sid="script")
        await script.hear_kind("execution_success")
        assert "gateway.session" not in script.kinds()


async def test_naming_anothers_socket_does_nothing() -> None:
    async with serve(ComfySimulator(name="duty")) as served, relay_before(served.url) as stand:
        page = await stand.connect(ALICE, "page")
        await page.hear_kind("status")
        assert not stand.relay.mark_page(BOB, "page")
        assert not stand.relay.tell_pages(BOB, TOLD)
        assert not stand.relay.tell_pages(ALICE, TOLD)


async def test_whoever_comes_later_under_the_same_id_is_no_page_until_it_says_so() -> None:
    async with serve(ComfySimulator(name="duty")) as served, relay_before(served.url) as stand:
        page = await stand.connect(sid="tab")
        await page.hear_kind("status")
        assert stand.relay.mark_page(ALICE, "tab")
        await page.socket.close()
        again = await stand.connect(sid="tab")
        await again.hear_kind("status")
        assert not stand.relay.tell_pages(ALICE, TOLD)
        assert stand.relay.mark_page(ALICE, "tab")
        assert stand.relay.tell_pages(ALICE, TOLD)
        await again.hear_kind("gateway.session")


SMALL = {"width": 32, "height": 32, "batch_size": 1, "color": 7}
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}}
