"""One-time codes: set up, needed at the login, good for one use, and given up."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pyotp
import pytest

from tests.api.conftest import Client, problem_of
from tests.api.test_auth import LOGIN, audited, log_in
from tests.api.world import PASSWORD, World


class Authenticator:
    """Somebody's app."""

    def __init__(self, enrolment: dict[str, str]) -> None:
        parsed = pyotp.parse_uri(enrolment["otpauth_uri"])
        assert isinstance(parsed, pyotp.TOTP)
        self.totp = parsed
        assert self.totp.secret == enrolment["secret"]

    def code(self, step: int = 0) -> str:
        """The code of this step, or of the one after it."""
        return self.totp.at(datetime.now(UTC).timestamp() + 30 * step)


async def enrol(api: Client, world: World) -> tuple[Authenticator, list[str]]:
    """Set one-time codes up for the chief, as if that had been a minute ago: this step's code is good again."""
    world.give_password(world.chief)
    begun = await api.post("/api/v1/me/totp", headers=world.chief.headers, json={"password": PASSWORD})
    assert begun.status_code == 201, begun.text
    assert begun.json()["qr_svg"].startswith("<svg")
    app = Authenticator(begun.json())
    body = {"totp_code": app.code()}
    confirmed = await api.post("/api/v1/me/totp/confirm", headers=world.chief.headers, json=body)
    assert confirmed.status_code == 200, confirmed.text
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update credentials set totp_last_counter = totp_last_counter - 2")
    return app, confirmed.json()["recovery_codes"]


async def own(api: Client, world: World, path: str, **body: Any) -> httpx.Response:
    return await api.post(f"/api/v1/me/{path}", headers=world.chief.headers, json=body)


async def test_a_login_needs_the_code_and_takes_each_once(api: Client, world: World) -> None:
    app, _ = await enrol(api, world)
    problem_of(await log_in(api, world.chief), 401, "identity.totp-required")
    problem_of(await log_in(api, world.chief, totp_code="000000"), 401, "identity.wrong-code")
    code = app.code()
    assert (await log_in(api, world.chief, totp_code=code)).status_code == 200
    problem_of(await log_in(api, world.chief, totp_code=code), 401, "identity.wrong-code")
    assert (await log_in(api, world.chief, totp_code=app.code(1))).status_code == 200
    entries = [(action, reason) for action, _, reason in audited(world)]
    assert entries == [
        ("user.totp_enable", None),
        ("session.sign_in_failed", "code"),
        ("session.sign_in", "totp"),
        ("session.sign_in_failed", "code"),
        ("session.sign_in", "totp"),
    ]


async def test_the_code_that_confirmed_is_used_up(api: Client, world: World) -> None:
    world.give_password(world.chief)
    app = Authenticator((await own(api, world, "totp", password=PASSWORD)).json())
    code = app.code()
    assert (await own(api, world, "totp/confirm", totp_code=code)).status_code == 200
    problem_of(await log_in(api, world.chief, totp_code=code), 401, "identity.wrong-code")


async def test_of_many_logins_at_once_with_one_code_one_succeeds(api: Client, world: World) -> None:
    app, _ = await enrol(api, world)
    code = app.code()
    answers = await asyncio.gather(*(log_in(api, world.chief, totp_code=code) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401]


async def test_a_code_without_the_password_is_worth_nothing(api: Client, world: World) -> None:
    app, _ = await enrol(api, world)
    body = {"email": world.chief.email, "password": "wrong", "totp_code": app.code()}
    problem_of(await api.post(LOGIN, json=body), 401, "identity.wrong-credentials")
    assert (await log_in(api, world.chief, totp_code=app.code())).status_code == 200


async def test_a_recovery_code_is_good_once_however_it_is_spelt(api: Client, world: World) -> None:
    _, codes = await enrol(api, world)
    assert len(set(codes)) == 10
    spelt = codes[0].upper().replace("-", " ")
    assert (await log_in(api, world.chief, recovery_code=spelt)).status_code == 200
    problem_of(await log_in(api, world.chief, recovery_code=codes[0]), 401, "identity.wrong-code")
    assert (await log_in(api, world.chief, recovery_code=codes[1])).status_code == 200


async def test_a_secret_counts_once_its_first_code_was_sent(api: Client, world: World) -> None:
    world.give_password(world.chief)
    problem_of(await own(api, world, "totp/confirm", totp_code="000000"), 409, "identity.totp-off")
    begun = (await own(api, world, "totp", password=PASSWORD)).json()
    assert (await log_in(api, world.chief)).status_code == 200
    problem_of(await own(api, world, "totp/confirm", totp_code="000000"), 422, "identity.wrong-second-factor")
    assert (await own(api, world, "totp/confirm", totp_code=Authenticator(begun).code())).status_code == 200
    problem_of(await log_in(api, world.chief), 401, "identity.totp-required")
    problem_of(await own(api, world, "totp", password=PASSWORD), 409, "identity.totp-on")


async def test_who_holds_a_session_needs_the_password_to_change_it(api: Client, world: World) -> None:
    world.give_password(world.chief)
    problem_of(await own(api, world, "totp", password="wrong"), 422, "identity.wrong-password")
    assert audited(world) == [("user.proof_failed", str(world.chief.id), "password")]
    for _ in range(9):
        await own(api, world, "totp", password="wrong")
    problem_of(await own(api, world, "totp", password=PASSWORD), 429, "identity.too-many-attempts")


async def test_giving_codes_up_needs_password_and_code(api: Client, world: World) -> None:
    app, _ = await enrol(api, world)
    problem_of(await own(api, world, "totp/disable", password=PASSWORD), 422, "request.invalid")
    wrong = await own(api, world, "totp/disable", password=PASSWORD, totp_code="000000")
    problem_of(wrong, 422, "identity.wrong-second-factor")
    code = app.code()
    problem_of(await own(api, world, "totp/disable", password="wrong", totp_code=code), 422, "identity.wrong-password")
    assert (await own(api, world, "totp/disable", password=PASSWORD, totp_code=code)).status_code == 204
    assert (await log_in(api, world.chief)).status_code == 200
    problem_of(await own(api, world, "totp/disable", password=PASSWORD, totp_code=code), 409, "identity.totp-off")


async def test_new_recovery_codes_take_the_place_of_the_old(api: Client, world: World) -> None:
    app, old = await enrol(api, world)
    response = await own(api, world, "recovery-codes", password=PASSWORD, totp_code=app.code())
    assert response.status_code == 200, response.text
    problem_of(await log_in(api, world.chief, recovery_code=old[0]), 401, "identity.wrong-code")
    new = response.json()["recovery_codes"]
    assert (await log_in(api, world.chief, recovery_code=new[0])).status_code == 200


@pytest.mark.parametrize("column", ["totp_sealed", "code_hash"])
async def test_the_database_knows_neither_secrets_nor_codes(api: Client, world: World, column: str) -> None:
    app, codes = await enrol(api, world)
    table = "credentials" if column == "totp_sealed" else "recovery_codes"
    with psycopg.connect(world.database_url) as connection:
        kept = b" ".join(row[0] for row in connection.execute(f"select {column} from {table}".encode()))
    for secret in (app.totp.secret, *codes):
        assert secret.encode() not in kept
