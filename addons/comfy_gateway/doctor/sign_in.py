"""Whether people could sign in, and be shown a certificate."""

import asyncio
from collections.abc import AsyncIterator

from comfy_gateway.adapters.users_file import UsersFile
from comfy_gateway.core.people.accounts import AccountsUnreadable
from comfy_gateway.core.people.sign_in import AuthMode
from comfy_gateway.doctor.findings import Finding, fail, ok, warn
from comfy_gateway.hooks.passwords import PasswordsUnusable, directory_of
from comfy_gateway.hooks.tls import CertificateUnusable, check_pair
from comfy_gateway.settings import Settings


async def look_at_sign_in(settings: Settings) -> AsyncIterator[Finding]:
    """What ``AUTH_MODE`` and ``TLS_CERT`` need; nothing to say where neither is used. Nobody's password is tried."""
    access, listen = settings.access, settings.listen
    subject = f"sign-in ({access.auth_mode})"
    match access.auth_mode:
        case AuthMode.TOKENS:
            yield await _users(subject, UsersFile(access.users_file))
        case AuthMode.BASIC if access.basic is not None:
            try:
                await asyncio.to_thread(directory_of, access.basic.get_secret_value())
            except PasswordsUnusable as error:
                yield fail(subject, str(error))
            else:
                yield ok(subject, "AUTH_BASIC can be used")
        case AuthMode.PROXY:
            proxies = ", ".join(access.trusted_proxies)
            yield ok(subject, f"{proxies} may name users in {settings.identity.header}")
    if listen.tls_cert is not None and listen.tls_key is not None:
        try:
            await asyncio.to_thread(check_pair, listen.tls_cert, listen.tls_key)
        except CertificateUnusable as error:
            yield fail("certificate", str(error))
        else:
            yield ok("certificate", f"{listen.tls_cert} and its key belong together")


async def _users(subject: str, file: UsersFile) -> Finding:
    try:
        accounts = await asyncio.to_thread(file.read)
    except AccountsUnreadable as error:
        return fail(subject, str(error))
    except OSError as error:
        return fail(subject, f"{error.filename}: {error.strerror}")
    if not accounts.by_name:
        return warn(subject, "nobody can sign in yet: ./run_gateway.sh user add NAME")
    people = len(accounts.by_name)
    return ok(subject, f"{people} user{'' if people == 1 else 's'} may sign in")
