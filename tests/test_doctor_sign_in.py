"""The doctor on sign-in: what would keep people out is found before they stand at the door."""

from pathlib import Path

import pytest
import trustme

from comfy_gateway.accounts.editor import UsersEditor
from comfy_gateway.core.people.roles import Role
from comfy_gateway.doctor.findings import Finding, Status
from comfy_gateway.doctor.sign_in import look_at_sign_in
from comfy_gateway.settings import load
from tests.fakes.passwords import FakeHashes


async def findings(root: Path, **environ: str) -> list[Finding]:
    settings = load({"DUTY_POD_URL": "http://localhost", **environ}, root=root)
    return [finding async for finding in look_at_sign_in(settings)]


async def test_without_sign_in_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert await findings(tmp_path) == []


async def test_tokens_need_users(tmp_path: Path) -> None:
    (found,) = await findings(tmp_path, AUTH_MODE="tokens")
    assert found.status is Status.WARN
    assert "user add NAME" in found.text
    path = tmp_path / "config/users.yaml"
    UsersEditor(path).add("alice", Role.USER, FakeHashes())
    (found,) = await findings(tmp_path, AUTH_MODE="tokens")
    assert (found.status, found.text) == (Status.OK, "1 user may sign in")
    path.write_text("users: 5")
    (found,) = await findings(tmp_path, AUTH_MODE="tokens")
    assert found.status is Status.FAIL
    path.unlink()
    path.mkdir()
    (found,) = await findings(tmp_path, AUTH_MODE="tokens")
    assert found.status is Status.FAIL


@pytest.mark.parametrize(
    ("content", "status"), [("alice:$2y$05$x", Status.OK), ("alice:SECRET", Status.FAIL)]
)
async def test_a_file_of_passwords_is_read(tmp_path: Path, content: str, status: Status) -> None:
    (tmp_path / "htpasswd").write_text(content)
    (found,) = await findings(tmp_path, AUTH_MODE="basic", AUTH_BASIC="@htpasswd")
    assert found.status is status
    assert "SECRET" not in found.text


async def test_who_may_name_users_is_told(tmp_path: Path) -> None:
    (found,) = await findings(tmp_path, AUTH_MODE="proxy", TRUSTED_PROXIES="10.0.0.1")
    assert found.text == "10.0.0.1/32 may name users in X-Comfy-User"


async def test_a_certificate_and_its_key_have_to_belong_together(tmp_path: Path) -> None:
    authority = trustme.CA()
    one, other = authority.issue_cert("one.example"), authority.issue_cert("other.example")
    one.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    one.private_key_pem.write_to_path(tmp_path / "key.pem")
    (found,) = await findings(tmp_path, TLS_CERT="cert.pem", TLS_KEY="key.pem")
    assert found.status is Status.OK
    other.private_key_pem.write_to_path(tmp_path / "key.pem")
    (found,) = await findings(tmp_path, TLS_CERT="cert.pem", TLS_KEY="key.pem")
    assert found.status is Status.FAIL
