"""Where the passwords of ``AUTH_MODE=basic`` are: an htpasswd file or LDAP, as mitmproxy's proxyauth knows them.

mitmproxy's own addon checks every request anew, in the event loop: with bcrypt a page of 500 requests would stand still
for half a minute, with LDAP everybody would wait for the directory. Its parsers and its check of a hash are used here,
and what they find is remembered by ``service.people.attempts``. Its addon stays switched off.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import ldap3
from ldap3.core import results
from ldap3.core.exceptions import LDAPException
from mitmproxy.addons import proxyauth
from mitmproxy.exceptions import OptionsError
from mitmproxy.utils.htpasswd import HtpasswdFile

from comfy_gateway.core.errors import GatewayError
from comfy_gateway.core.people.sign_in import Passwords, PasswordsUnavailable
from comfy_gateway.core.people.users import is_valid_name
from comfy_gateway.core.ports import Clock

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
LDAP_TIMEOUT_S: Final = 5
_FROM_LDAP: Final = "ldap"
_SHA1: Final = "{SHA}"
_NO_ANSWER: Final = frozenset({results.RESULT_BUSY, results.RESULT_UNAVAILABLE})


class PasswordsUnusable(GatewayError):
    """The start has to stop. The text holds neither a password nor a hash."""


class Directory(Passwords, Protocol):
    """Passwords that may change while the gateway runs."""

    def refresh(self) -> list[str]:
        """Look whether they have; returns whose password has. Reads the disk, in a thread."""
        ...


async def follow(directory: Directory, clock: Clock, leave: Callable[[str], None]) -> None:
    """Look again and again; ``leave`` gets the name of whoever is removed or has another password."""
    while True:
        await clock.sleep(LOOK_EVERY_S)
        for name in await asyncio.to_thread(directory.refresh):
            logger.info("the password of user %s was removed or changed", name)
            leave(name)


def directory_of(source: str) -> Directory:
    """What ``AUTH_BASIC`` names. Reads the disk. Raises PasswordsUnusable."""
    return Htpasswd(Path(source[1:])) if source.startswith("@") else Ldap(source)


class Htpasswd:
    """Implements ``Directory``: a file of names and bcrypt hashes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = self._look()
        self._file = self._read()

    def canonical(self, name: str) -> str:
        """As it is."""
        return name

    def stamp(self, name: str) -> str | None:
        """The hash."""
        return self._file.users.get(name)

    def check(self, name: str, password: str) -> bool:
        """For somebody unknown another hash is computed: the time it takes shall not tell who is known."""
        file = self._file
        known = name if name in file.users else next(iter(file.users), None)
        try:
            is_right = known is not None and file.check_password(known, password)
        except ValueError:  # longer than bcrypt takes, or with a zero byte
            return False
        return is_right and known == name

    def refresh(self) -> list[str]:
        """A file that cannot be used changes nothing; one that is gone holds nobody."""
        version = self._look()
        if version == self._version:
            return []
        self._version = version
        before = self._file.users
        try:
            self._file = HtpasswdFile("") if version is None else self._read()
        except PasswordsUnusable as error:
            logger.error("%s; what it said before still holds", error)  # noqa: TRY400 - its reader needs no trace
            return []
        return [name for name, hashed in before.items() if self._file.users.get(name) != hashed]

    def _look(self) -> object:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> HtpasswdFile:
        try:
            found = HtpasswdFile.from_file(self._path)
        except OSError as error:
            raise PasswordsUnusable(
                f"{self._path} cannot be read: {error.strerror or 'no such file'}"
            ) from None
        except ValueError:
            raise PasswordsUnusable(
                f"{self._path} is no htpasswd file with bcrypt hashes; write it with htpasswd -B"
            ) from None
        for name, hashed in found.users.items():
            if hashed.startswith(_SHA1):
                raise PasswordsUnusable(
                    f"{self._path}: the password of {name!r} is hashed by SHA-1, which protects nothing;"
                    " use htpasswd -B"
                )
            if not is_valid_name(name):
                logger.warning(
                    "%s: user %r cannot sign in: a name is 1 to 128 printable ASCII characters",
                    self._path,
                    name,
                )
        return found


class Ldap(proxyauth.Ldap):
    """Implements ``Directory``: a person is searched, then bound as with the password.

    mitmproxy's own class waits for ever and accepts any certificate; this one gives up after ``LDAP_TIMEOUT_S`` and
    checks the certificate of ``ldaps`` against the system's authorities (``SSL_CERT_FILE`` names others). Each check
    has its own connection: one that the directory has closed meanwhile lets nobody out.
    """

    def __init__(self, source: str) -> None:
        try:
            use_ssl, host, port, self._binder, self._secret, self.dn_subtree, self.filter_key = (
                self.parse_spec(source)
            )
        except OptionsError:
            raise PasswordsUnusable(
                "AUTH_BASIC (its value is not shown) is not ldap[s]:host[:port]:dn_auth:password:dn_subtree"
            ) from None
        if not use_ssl:
            logger.warning(
                "AUTH_BASIC speaks ldap: passwords go over the network in plain text; ldaps does not"
            )
        self.server = ldap3.Server(
            host,
            port=port,
            use_ssl=use_ssl,
            tls=ldap3.Tls(validate=ssl.CERT_REQUIRED) if use_ssl else None,
            get_info=ldap3.NONE,
            connect_timeout=LDAP_TIMEOUT_S,
        )

    def canonical(self, name: str) -> str:
        """Directories do not tell Alice from alice, nor one space from two."""
        return " ".join(name.split()).lower()

    def stamp(self, name: str) -> str | None:
        """The directory does not say when a password changes."""
        return _FROM_LDAP

    def check(self, name: str, password: str) -> bool:
        """See the port."""
        if not name or not password:
            return False  # a bind without password succeeds
        try:
            found = self._dn_of(name)
            return found is not None and self._binds(found, password)
        except (LDAPException, OSError) as error:
            logger.warning("LDAP does not answer: %s", type(error).__name__)
            raise PasswordsUnavailable from error

    def refresh(self) -> list[str]:
        """See ``stamp``."""
        return []

    def _dn_of(self, name: str) -> str | None:
        """Of the one entry; nobody where there are several."""
        with self._connection(self._binder, self._secret) as connection:
            if not connection.bind():
                raise PasswordsUnavailable
            connection.search(self.dn_subtree, self.make_search_filter(name), size_limit=2)
            dns = [
                str(entry["dn"]) for entry in connection.response or () if entry["type"] == "searchResEntry"
            ]
        return dns[0] if len(dns) == 1 else None

    def _binds(self, dn: str, password: str) -> bool:
        with self._connection(dn, password) as connection:
            is_right = bool(connection.bind())
            if not is_right and connection.result["result"] in _NO_ANSWER:
                raise PasswordsUnavailable
        return is_right

    @contextmanager
    def _connection(self, dn: str, password: str) -> Iterator[ldap3.Connection]:
        connection = ldap3.Connection(
            self.server, dn, password, receive_timeout=LDAP_TIMEOUT_S, read_only=True, raise_exceptions=False
        )
        try:
            yield connection
        finally:
            connection.unbind()
            if connection.socket is not None:
                connection.socket.close()  # left open where it could not be connected
