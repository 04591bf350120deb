"""`hse admin`: who may do everything. There is no default account: the operator makes the first one here."""

import asyncio
import sys
from typing import Annotated

import msgspec
import typer

from hse.adapters.passwords import Argon2Passwords
from hse.adapters.postgres.engine import transaction
from hse.adapters.postgres.operators import NewRoot, add_root
from hse.api.bodies import Email, PersonName
from hse.cli.options import DataDir
from hse.cli.place import place_of
from hse.domain.identity.passwords import hash_new_password
from hse.failure import Failure

app = typer.Typer(help="Make somebody who may do everything.", no_args_is_help=True)


class NotAPerson(Failure):
    """An option does not hold an address or a name."""


@app.callback()
def admin() -> None:
    """Make somebody who may do everything."""


@app.command()
def create(
    email: Annotated[str, typer.Option(help="The address that he signs in with.", show_default=False)],
    first_name: Annotated[str, typer.Option(help="His first name.")] = "Root",
    last_name: Annotated[str, typer.Option(help="His last name.")] = "Operator",
    is_from_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input, and do not ask for it.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Make a root account: the first one, or another when nobody can sign in any more."""
    _check(email, first_name, last_name)
    database_url = place_of(data_dir).database_url
    password = sys.stdin.readline().rstrip("\r\n") if is_from_stdin else _ask()
    password_hash = asyncio.run(hash_new_password(Argon2Passwords(), password, [email, first_name, last_name]))
    root = NewRoot(email=email, first_name=first_name, last_name=last_name, password_hash=password_hash)
    with transaction(database_url) as connection:
        user_id = add_root(connection, root)
    print(f"{email} is root now: {user_id}")


def _check(email: str, first_name: str, last_name: str) -> None:
    for option, value, kind in (
        ("--email", email, Email),
        ("--first-name", first_name, PersonName),
        ("--last-name", last_name, PersonName),
    ):
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise NotAPerson(f"{option}: {error}") from error


def _ask() -> str:
    answer: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return answer
