"""A small LDAP directory on a real socket: binds and searches by one equality, which is all that is asked of it."""

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from ldap3.protocol import rfc4511
from pyasn1.codec.ber import decoder, encoder
from pyasn1.error import SubstrateUnderrunError

BINDER: Final = ("cn=gateway,dc=example", "SECRET of the gateway")
SUBTREE: Final = "ou=people,dc=example"
_RIGHT, _WRONG, _BUSY = 0, 49, 51


@dataclass
class Directory:
    """People by ``cn``, and the directory's moods."""

    port: int
    passwords: Mapping[str, str]
    searched: list[str] = field(default_factory=list)
    is_silent: bool = False
    is_busy: bool = False
    doubles: bool = False
    """Every search finds two."""

    def spec(
        self, *, scheme: str = "ldap", host: str = "127.0.0.1", more: str = "", secret: str = BINDER[1]
    ) -> str:
        """What ``AUTH_BASIC`` says."""
        return f"{scheme}:{host}:{self.port}:{BINDER[0]}:{secret}:{SUBTREE}{more}"

    def bind(self, dn: str, password: str) -> int:
        """The result's code."""
        if (dn, password) == BINDER:
            return _RIGHT
        if self.is_busy:
            return _BUSY
        name = dn.partition(",")[0].removeprefix("cn=")
        return _RIGHT if self.passwords.get(name) == password else _WRONG

    def search(self, name: str) -> list[str]:
        """The names that are found; without case, as directories do."""
        self.searched.append(name)
        found = [known for known in self.passwords if known.lower() == name.lower()]
        return [*found, "somebody else"] if self.doubles else found


@contextmanager
def running_directory(*, tls: ssl.SSLContext | None = None, **passwords: str) -> Iterator[Directory]:
    """On a free port, until the end of the block."""
    directory = Directory(0, passwords)

    class Talk(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                if tls is None:
                    _talk(self.request, directory)
                    return
                # Not before the handshake: a socket whose handshake fails has to be closed here, too.
                with tls.wrap_socket(
                    self.request, server_side=True, do_handshake_on_connect=False
                ) as secured:
                    secured.do_handshake()
                    _talk(secured, directory)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Talk) as server:
        directory.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield directory
        finally:
            server.shutdown()


def _talk(connection: Any, directory: Directory) -> None:
    buffer = b""
    while chunk := connection.recv(65536):
        buffer += chunk
        while buffer:
            try:
                message, buffer = decoder.decode(buffer, asn1Spec=rfc4511.LDAPMessage())
            except SubstrateUnderrunError:
                break
            if directory.is_silent:
                continue
            for answer in _answers(message, directory):
                connection.sendall(answer)


def _answers(message: Any, directory: Directory) -> Iterator[bytes]:
    number, operation = int(message["messageID"]), message["protocolOp"]
    if operation.getName() == "bindRequest":
        request = operation["bindRequest"]
        code = directory.bind(str(request["name"]), bytes(request["authentication"]["simple"]).decode())
        yield _message(number, "bindResponse", code)
    elif operation.getName() == "searchRequest":
        match = operation["searchRequest"]["filter"]["equalityMatch"]
        name = bytes(match["assertionValue"]).decode()
        for found in directory.search(name):
            entry = rfc4511.SearchResultEntry()
            entry["object"] = f"cn={found},{SUBTREE}"
            entry["attributes"] = rfc4511.PartialAttributeList()
            yield _wrapped(number, "searchResEntry", entry)
        yield _message(number, "searchResDone", _RIGHT)


def _message(number: int, kind: str, code: int) -> bytes:
    answer = {"bindResponse": rfc4511.BindResponse, "searchResDone": rfc4511.SearchResultDone}[kind]()
    answer["resultCode"] = code
    answer["matchedDN"] = ""
    answer["diagnosticMessage"] = ""
    return _wrapped(number, kind, answer)


def _wrapped(number: int, kind: str, answer: Any) -> bytes:
    message = rfc4511.LDAPMessage()
    message["messageID"] = number
    message["protocolOp"] = rfc4511.ProtocolOp().setComponentByName(kind, answer)
    found: bytes = encoder.encode(message)
    return found
