"""HTTPS for browsers: mitmproxy serves the certificate of ``TLS_CERT`` (its own option ``certs``)."""

import asyncio
import hashlib
import logging
import ssl
from pathlib import Path
from typing import Final

from mitmproxy import ctx, exceptions

from comfy_gateway.core.errors import GatewayError
from comfy_gateway.core.ports import Clock

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 30.0


class CertificateUnusable(GatewayError):
    """The start has to stop. The text names the files."""


class Certificate:
    """A certificate with its chain, and its key, in two files that somebody renews from time to time."""

    def __init__(self, cert: Path, key: Path, folder: Path) -> None:
        """mitmproxy wants both in one file: that is kept in ``folder``, readable by nobody else."""
        self._cert = cert
        self._key = key
        self._folder = folder
        self._version: object = None

    def prepare(self) -> Path:
        """The file for mitmproxy, of what the files hold now. Reads and writes the disk. Raises CertificateUnusable."""
        self._version = self._look()  # also of what cannot be used: said once
        return self._join()

    def serve(self, joined: Path) -> None:
        """Have mitmproxy serve it. Raises CertificateUnusable; what was served before is served on."""
        try:
            ctx.options.update(certs=[f"*={joined}"])
        except exceptions.OptionsError as error:
            raise CertificateUnusable(f"{self._cert}: mitmproxy cannot use this certificate") from error
        for old in self._folder.glob("tls-*.pem"):
            if old != joined:
                old.unlink(missing_ok=True)

    async def follow(self, clock: Clock) -> None:
        """Serve what is renewed. What cannot be used changes nothing, and is said once."""
        while True:
            await clock.sleep(LOOK_EVERY_S)
            if await asyncio.to_thread(self._look) == self._version:
                continue
            try:
                self.serve(await asyncio.to_thread(self.prepare))
                logger.info("the certificate of %s was renewed", self._cert)
            except CertificateUnusable as error:
                logger.error("%s; the one before is served on", error)  # noqa: TRY400 - its reader needs no trace

    def _look(self) -> object:
        try:
            return tuple((file.stat().st_mtime_ns, file.stat().st_ino) for file in (self._cert, self._key))
        except OSError:
            return None

    def _join(self) -> Path:
        check_pair(self._cert, self._key)
        try:
            content = self._key.read_bytes().rstrip() + b"\n" + self._cert.read_bytes()
            # A name of its own: mitmproxy keeps what it once made of a file of the same name.
            joined = self._folder / f"tls-{hashlib.sha256(content).hexdigest()[:16]}.pem"
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            joined.touch(mode=0o600)
            joined.write_bytes(content)
        except OSError as error:
            raise CertificateUnusable(f"{error.filename}: {error.strerror}") from error
        return joined


def check_pair(cert: Path, key: Path) -> None:
    """Whether OpenSSL takes both, and the one belongs to the other. Raises CertificateUnusable."""

    def no_password() -> str:
        raise CertificateUnusable(f"{key}: the key has a password; take it off with openssl pkey")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=no_password)
    except ssl.SSLError as error:
        what = "the key does not belong to the certificate" if "MISMATCH" in str(error) else "no such PEM"
        raise CertificateUnusable(f"TLS_CERT={cert}, TLS_KEY={key}: {what}") from None
    except OSError as error:
        missing = next((file for file in (cert, key) if not file.is_file()), cert)
        raise CertificateUnusable(f"{missing} cannot be read: {error.strerror}") from None
