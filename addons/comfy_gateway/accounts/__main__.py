"""``python -m comfy_gateway.accounts add NAME [--operator]``, ``list`` and ``remove NAME``."""

import argparse
import sys

from comfy_gateway.accounts.editor import UsersEditor
from comfy_gateway.adapters.argon2_hashes import Argon2Hashes
from comfy_gateway.core.people.accounts import AccountsUnreadable
from comfy_gateway.core.people.roles import Role
from comfy_gateway.settings import SettingsError, load_users_file


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 when it is done, 1 when it cannot be, 2 when it was asked for wrongly."""
    parser = argparse.ArgumentParser(
        prog="./run_gateway.sh user", description="The people who sign in by a token (AUTH_MODE=tokens)."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="add | list | remove")
    add = actions.add_parser("add", help="add somebody and print the token, once")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--operator", action="store_true", help="may see the operator's pages below /gateway/")
    actions.add_parser("list", help="print names and roles")
    remove = actions.add_parser("remove", help="remove somebody; a running gateway notices within seconds")
    remove.add_argument("name", metavar="NAME")
    chosen = parser.parse_args(arguments)
    try:
        editor = UsersEditor(load_users_file())
        match chosen.action:
            case "add":
                return _add(editor, chosen.name, Role.OPERATOR if chosen.operator else Role.USER)
            case "remove":
                return _remove(editor, chosen.name)
            case _:
                return _list(editor)
    except SettingsError as error:
        return _say("".join(f"{fault}\n" for fault in error.faults).rstrip(), code=2)
    except AccountsUnreadable as error:
        return _say(str(error), code=1)
    except OSError as error:
        return _say(f"{error.filename}: {error.strerror}", code=1)


def _add(editor: UsersEditor, name: str, role: Role) -> int:
    token = editor.add(name, role, Argon2Hashes())
    if token is None:
        return _say(f"{name!r} is there already; remove it first to give it another token", code=1)
    _say(f"{name!r} may sign in with this token. It is shown this once and kept nowhere:", code=0)
    sys.stdout.write(f"{token}\n")
    return 0


def _remove(editor: UsersEditor, name: str) -> int:
    if not editor.remove(name):
        return _say(f"there is no {name!r}", code=1)
    return _say(f"{name!r} is removed", code=0)


def _list(editor: UsersEditor) -> int:
    accounts = editor.all().by_name.values()
    width = max((len(account.name) for account in accounts), default=0)
    for account in sorted(accounts, key=lambda account: account.name):
        sys.stdout.write(f"{account.name:<{width}}  {account.role}\n")
    return 0


def _say(text: str, *, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
