"""`hse admin create` as an operator runs it."""

import os
import subprocess
import sys

import psycopg
import pytest

from tests.api.conftest import Client
from tests.api.test_auth import LOGIN
from tests.api.world import World

PASSWORD = "seven otters juggle plums"


def hse_admin(database_url: str, password: str, email: str = "first@example.com") -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HSE_")}
    command = [sys.executable, "-m", "hse", "admin", "create", "--email", email, "--password-stdin"]
    environment["HSE_DATABASE_URL"] = database_url
    return subprocess.run(
        command, input=password + "\n", capture_output=True, text=True, check=False, env=environment, timeout=60
    )


async def test_who_the_operator_makes_root_signs_in_and_sees_everything(
    api: Client, world: World, database_url: str
) -> None:
    made = hse_admin(database_url, PASSWORD)
    assert made.returncode == 0, made.stderr
    signed_in = await api.post(LOGIN, json={"email": "first@example.com", "password": PASSWORD})
    assert signed_in.status_code == 200, signed_in.text
    headers = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
    seen = (await api.get("/api/v1/organizations", headers=headers)).json()["items"]
    assert {item["name"] for item in seen} == {"Acme", "Bolt", "Core"}
    with psycopg.connect(world.database_url) as connection:
        kinds = connection.execute("select actor_kind, action from audit_entries order by id").fetchall()
        kept = connection.execute("select string_agg(audit_entries::text, ' ') from audit_entries").fetchone()
    assert kinds == [("operator", "user.create"), ("anonymous", "session.sign_in")]
    assert kept is not None
    assert "argon2" not in kept[0]
    assert PASSWORD not in made.stdout + kept[0]


@pytest.mark.parametrize(
    ("email", "password", "told"),
    [
        ("first@example.com", "short", "12 characters"),
        ("first@example.com", "password123456", "choose another password"),
        ("nobody", PASSWORD, "--email"),
        ("ROOT@example.com", PASSWORD, "another user has this email"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    world: World, database_url: str, email: str, password: str, told: str
) -> None:
    refused = hse_admin(database_url, password, email)
    assert refused.returncode == 1
    assert told in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    with psycopg.connect(world.database_url) as connection:
        assert connection.execute("select count(*) from credentials").fetchone() == (0,)


def test_without_an_operator_there_is_nobody(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select count(*) from users").fetchone() == (0,)
