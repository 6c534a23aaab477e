"""Pictures, uploads and the person's files of the simulated ComfyUI."""

import json

import pytest
from yarl import URL

from simulators.comfyui import ComfySimulator
from tests.simulators.comfy_client import Duty, empty, loading, opened, png, saved, served_as


async def test_the_same_name_is_another_picture_on_another_server(duty: Duty, private: Duty) -> None:
    await duty.run(saved())
    await private.run(saved())
    name = "ComfyUI_00001_.png"
    here, there = await duty.picture(filename=name), await private.picture(filename=name)
    assert opened(here).size == opened(there).size == (64, 48)
    assert opened(here).convert("RGB").tobytes() != opened(there).convert("RGB").tobytes()


async def test_each_picture_of_a_server_is_another_one(duty: Duty) -> None:
    await duty.run(saved(batch_size=2))
    one, two = [await duty.picture(filename=f"ComfyUI_0000{number}_.png") for number in (1, 2)]
    assert opened(one).convert("RGB").tobytes() != opened(two).convert("RGB").tobytes()


async def test_numbers_count_on_for_each_prefix_and_a_prefix_may_name_a_subfolder(duty: Duty) -> None:
    names = []
    for color, prefix in enumerate(["ComfyUI", "ComfyUI", "cats/cat", "ComfyUI_x", "cats/cat"]):
        entry = await duty.run(saved(color, prefix))
        names += [(image["subfolder"], image["filename"]) for image in entry["outputs"]["2"]["images"]]
    assert names == [
        ("", "ComfyUI_00001_.png"),
        ("", "ComfyUI_00002_.png"),
        ("cats", "cat_00001_.png"),
        ("", "ComfyUI_x_00001_.png"),
        ("cats", "cat_00002_.png"),
    ]
    assert await duty.picture(filename="cat_00002_.png", subfolder="cats")


async def test_a_prefix_out_of_the_output_folder_is_an_execution_error(duty: Duty) -> None:
    entry = await duty.run(saved(prefix="../outside"))
    name, data = entry["status"]["messages"][-1]
    assert name == "execution_error"
    assert "outside the output folder" in data["exception_message"]


async def test_preview_image_writes_to_temp(duty: Duty) -> None:
    nodes = {"1": empty(), "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    (image,) = (await duty.run(nodes))["outputs"]["2"]["images"]
    assert image["type"] == "temp"
    assert await duty.picture(**image)


async def test_an_uploaded_picture_goes_through_the_nodes(duty: Duty) -> None:
    await duty.upload("red.png", png("red", (40, 40)))
    invert = {"class_type": "ImageInvert", "inputs": {}}
    scale = {
        "class_type": "ImageScale",
        "inputs": {"upscale_method": "lanczos", "width": 80, "height": 0, "crop": "disabled"},
    }
    await duty.run(loading("red.png", invert, scale))
    picture = opened(await duty.picture(filename="ComfyUI_00001_.png"))
    assert picture.size == (80, 80)
    assert picture.getpixel((79, 79)) == (0, 255, 255)


async def test_a_picture_carries_its_prompt(duty: Duty) -> None:
    await duty.run(saved(), extra_data={"extra_pnginfo": {"workflow": {"id": 1}}})
    text = opened(await duty.picture(filename="ComfyUI_00001_.png")).info
    assert json.loads(text["prompt"]) == saved()
    assert json.loads(text["workflow"]) == {"id": 1}


async def test_a_changed_upload_of_the_same_name_runs_again(duty: Duty) -> None:
    await duty.upload("photo.png", png("red"))
    await duty.run(loading("photo.png"))
    await duty.upload("photo.png", png("blue"), overwrite="true")
    entry = await duty.run(loading("photo.png"))
    assert entry["outputs"]["9"]["images"][0]["filename"] == "ComfyUI_00002_.png"


async def test_a_node_that_fails_is_told_with_its_words(duty: Duty) -> None:
    entry = await duty.run({"1": {"class_type": "SimFail", "inputs": {"message": "boom"}}})
    assert entry["status"]["status_str"] == "error"
    name, data = entry["status"]["messages"][-1]
    assert name == "execution_error"
    assert data["exception_message"] == "boom\n"
    assert data["exception_type"] == "RuntimeError"
    assert data["current_inputs"] == {"message": ["boom"]}
    assert (await duty.run(saved()))["status"]["completed"] is True


async def test_view_answers_ranges_and_revalidation(duty: Duty) -> None:
    await duty.run(saved())
    whole = await duty.picture(filename="ComfyUI_00001_.png")
    async with duty.http.get("view?filename=ComfyUI_00001_.png", headers={"Range": "bytes=1-3"}) as answer:
        assert (answer.status, await answer.read()) == (206, whole[1:4])
        assert answer.headers["Content-Disposition"] == 'filename="ComfyUI_00001_.png"'
        etag = answer.headers["ETag"]
    async with duty.http.get("view?filename=ComfyUI_00001_.png", headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304


async def test_view_makes_previews_and_single_channels(duty: Duty) -> None:
    await duty.upload("half.png", png("#ff000080", mode="RGBA"))
    asked = {"filename": "half.png", "type": "input"}
    assert opened(await duty.picture(**asked, preview="jpeg;50")).format == "JPEG"
    assert opened(await duty.picture(**asked, preview="webp;90")).format == "WEBP"
    assert opened(await duty.picture(**asked, channel="rgb")).getpixel((0, 0)) == (255, 0, 0)
    assert opened(await duty.picture(**asked, channel="a")).getpixel((0, 0)) == (0, 0, 0, 128)
    assert opened(await duty.picture(filename="half.png [input]")).getpixel((0, 0)) == (255, 0, 0, 128)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("filename=", 400),
        ("filename=ComfyUI_00009_.png", 404),
        ("filename=../user/default/secret", 400),
        ("filename=/etc/hostname", 400),
        ("filename=a.png&type=elsewhere", 400),
        ("filename=secret&subfolder=../user/default", 403),
        ("filename=secret&subfolder=/etc", 403),
    ],
)
async def test_view_stays_in_its_folders(duty: Duty, query: str, status: int) -> None:
    assert await duty.post("userdata/secret", "x") == 200
    async with duty.http.get(f"view?{query}") as answer:
        assert answer.status == status


async def test_an_upload_that_clashes_gets_another_name(duty: Duty) -> None:
    first = await duty.upload("photo.png", b"one")
    assert first == {"name": "photo.png", "subfolder": "", "type": "input"}
    assert (await duty.upload("photo.png", b"two"))["name"] == "photo (1).png"
    assert (await duty.upload("photo.png", b"three"))["name"] == "photo (2).png"
    assert (await duty.upload("photo.png", b"one"))["name"] == "photo.png"
    assert (await duty.upload("photo.png", b"two"))["name"] == "photo (1).png"
    assert (await duty.upload("photo.png", b"four", overwrite="true"))["name"] == "photo.png"
    assert await duty.picture(filename="photo.png", type="input") == b"four"
    assert await duty.picture(filename="photo (1).png", type="input") == b"two"


async def test_an_upload_goes_where_type_and_subfolder_say(duty: Duty) -> None:
    told = await duty.upload("a.png", b"a", "api/upload/image", type="temp", subfolder="clipspace")
    assert told == {"name": "a.png", "subfolder": "clipspace", "type": "temp"}
    assert await duty.picture(filename="a.png", type="temp", subfolder="clipspace") == b"a"


async def test_an_upload_stays_in_its_folders(duty: Duty) -> None:
    assert await duty.upload("a.png", b"a", subfolder="../../x") == 400
    assert await duty.post("upload/image") == 400


async def test_a_mask_gives_its_alpha_to_the_original(duty: Duty) -> None:
    await duty.upload("photo.png", png("red"))
    reference = json.dumps({"filename": "photo.png", "type": "input"})
    mask = png("#00000040", mode="RGBA")
    told = await duty.upload("masked.png", mask, "upload/mask", original_ref=reference, subfolder="clipspace")
    assert told == {"name": "masked.png", "subfolder": "clipspace", "type": "input"}
    masked = opened(await duty.picture(filename="masked.png", subfolder="clipspace", type="input"))
    assert masked.getpixel((0, 0)) == (255, 0, 0, 64)
    assert (await duty.run(loading("clipspace/masked.png [input]")))["status"]["completed"] is True


async def test_userdata_names_carry_their_slashes_encoded(duty: Duty) -> None:
    url = URL(f"{duty.served.url}api/userdata/workflows%2Fmy%20cat.json?full_info=true", encoded=True)
    async with duty.http.post(url, data=b"{}") as answer:
        told = await answer.json()
    assert (told["path"], told["size"]) == ("workflows/my cat.json", 2)
    async with duty.http.get(url) as answer:
        assert await answer.read() == b"{}"
    async with duty.http.post(f"{url}&overwrite=false", data=b"[]") as answer:
        assert answer.status == 409
    assert await duty.get("userdata?dir=workflows&recurse=true&split=true") == [
        ["my cat.json", "my cat.json"]
    ]
    assert await duty.get("userdata?dir=workflows") == ["my cat.json"]
    assert [entry["path"] for entry in await duty.get("v2/userdata?path=")] == [
        "workflows",
        "workflows/my cat.json",
    ]
    move = URL(f"{duty.served.url}userdata/workflows%2Fmy%20cat.json/move/old%2Fcat.json", encoded=True)
    async with duty.http.post(move) as answer:
        assert await answer.json() == "old/cat.json"
    moved = URL(f"{duty.served.url}userdata/old%2Fcat.json", encoded=True)
    async with duty.http.delete(moved) as answer:
        assert answer.status == 204
    async with duty.http.get(moved) as answer:
        assert answer.status == 404


async def test_a_userdata_path_whose_slash_was_decoded_is_another_route(duty: Duty) -> None:
    async with duty.http.post("userdata/workflows/cat.json", data=b"{}") as answer:
        assert answer.status in (404, 405)


async def test_userdata_stays_in_the_users_folder(duty: Duty) -> None:
    url = URL(f"{duty.served.url}userdata/..%2F..%2Foutput%2Fx", encoded=True)
    async with duty.http.post(url, data=b"x") as answer:
        assert answer.status == 403


async def test_settings_are_kept(duty: Duty) -> None:
    assert await duty.get("settings") == {}
    assert await duty.post("settings", {"Comfy.Locale": "de", "b": 1}) == 200
    assert await duty.post("api/settings/b", 2) == 200
    assert await duty.get("settings") == {"Comfy.Locale": "de", "b": 2}
    assert await duty.get("settings/b") == 2
    assert await duty.get("settings/unknown") is None
    assert await duty.get("users") == {"storage": "server", "migrated": True}


async def test_multi_user_keeps_the_files_of_each_apart() -> None:
    async for duty in served_as(ComfySimulator(multi_user=True)):
        async with duty.http.post("users", json={"username": "anna"}) as answer:
            anna = await answer.json()
        headers = {"Comfy-User": anna}
        async with duty.http.post("userdata/x", data=b"1", headers=headers) as answer:
            assert answer.status == 200
        async with duty.http.get("userdata/x", headers=headers) as answer:
            assert await answer.read() == b"1"
        async with duty.http.get("userdata/x", headers={"Comfy-User": "nobody"}) as answer:
            assert answer.status == 403
        assert (await duty.get("users"))["users"] == {anna: "anna"}
