"""The certificate that browsers see: joined for mitmproxy, checked first, renewed without a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.test import taddons

from comfy_gateway.hooks.tls import LOOK_EVERY_S, Certificate, CertificateUnusable
from comfy_gateway.service.tasks import Tasks
from tests.conditions import wait_for
from tests.fakes.clock import FakeClock


class Stand:
    """Two files, and a mitmproxy that serves them."""

    def __init__(self, folder: Path, tls: TlsConfig) -> None:
        self.cert, self.key, self.secrets = folder / "cert.pem", folder / "key.pem", folder / "secrets"
        self.authority = trustme.CA()
        self.tls = tls
        self.certificate = Certificate(self.cert, self.key, self.secrets)

    def write(self, name: str) -> None:
        """A new certificate for a host name."""
        found = self.authority.issue_cert(name)
        found.cert_chain_pems[0].write_to_path(self.cert)
        found.private_key_pem.write_to_path(self.key)

    def served(self) -> str:
        """The name in the certificate that any host name is answered with."""
        (altname,) = self.tls.certstore.certs["*"].cert.altnames
        return str(altname.value)

    @property
    def joined(self) -> list[Path]:
        return list(self.secrets.glob("tls-*.pem"))


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    tls = TlsConfig()
    with taddons.context(tls) as context:
        context.configure(tls, confdir=str(tmp_path))
        yield Stand(tmp_path, tls)


def test_mitmproxy_serves_it_from_a_file_that_nobody_else_can_read(stand: Stand) -> None:
    stand.write("one.example")
    stand.certificate.serve(stand.certificate.prepare())
    assert stand.served() == "one.example"
    (joined,) = stand.joined
    assert joined.stat().st_mode & 0o777 == 0o600
    assert stand.secrets.stat().st_mode & 0o777 == 0o700


def test_both_may_be_one_file(stand: Stand) -> None:
    stand.write("one.example")
    both = stand.cert.with_name("both.pem")
    both.write_bytes(stand.cert.read_bytes() + stand.key.read_bytes())
    certificate = Certificate(both, both, stand.secrets)
    certificate.serve(certificate.prepare())
    assert stand.served() == "one.example"


async def test_a_renewed_certificate_is_served_and_a_broken_one_is_not(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    stand.write("one.example")
    stand.certificate.serve(stand.certificate.prepare())
    clock, tasks = FakeClock(), Tasks("test")
    tasks.start(stand.certificate.follow(clock), name="certificate")

    async def look() -> None:
        await clock.advance(LOOK_EVERY_S)
        # The disk is read in threads, which no clock of ours moves.
        await wait_for(lambda: clock.sleepers, "the end of the look")

    stand.write("two.example")
    await look()
    assert stand.served() == "two.example"
    assert len(stand.joined) == 1
    stand.cert.write_text("rubbish")
    await look()
    await look()
    assert stand.served() == "two.example"
    assert caplog.text.count("the one before is served on") == 1
    stand.key.unlink()
    await look()
    assert stand.served() == "two.example"
    stand.write("three.example")
    await look()
    assert stand.served() == "three.example"
    await tasks.aclose()


def test_what_cannot_be_served_is_said_by_name(stand: Stand) -> None:
    with pytest.raises(CertificateUnusable, match=r"cert\.pem cannot be read"):
        stand.certificate.prepare()
    stand.write("one.example")
    stand.key.unlink()
    with pytest.raises(CertificateUnusable, match=r"key\.pem cannot be read"):
        stand.certificate.prepare()
    stand.key.write_text("rubbish")
    with pytest.raises(CertificateUnusable, match="no such PEM"):
        stand.certificate.prepare()
    stand.authority.issue_cert("other.example").private_key_pem.write_to_path(stand.key)
    with pytest.raises(CertificateUnusable, match="the key does not belong to the certificate"):
        stand.certificate.prepare()
    stand.write("one.example")
    locked = serialization.load_pem_private_key(stand.key.read_bytes(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    stand.key.write_bytes(locked)
    with pytest.raises(CertificateUnusable, match="the key has a password"):
        stand.certificate.prepare()
    assert not stand.joined
