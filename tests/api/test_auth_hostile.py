"""What nobody sends who means well is refused, and breaks nothing."""

from typing import Any

import pytest

from tests.api.conftest import Client
from tests.api.test_auth import LOGIN, log_in
from tests.api.world import PASSWORD, World

CHIEF = "chief@example.com"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("login", b'{"email": "a@\\ud800.example", "password": "x"}'),
        ("login", b'{"email": "a@b.example", "password": "\\ud800"}'),
        ("login", b'{"email": "a@b.example\\n", "password": "x"}'),
        ("login", b'{"email": "a\\u0000@b.example", "password": "x"}'),
        ("login", b'{"email": "a@b.example", "password": "x", "totp_code": "123456\\n"}'),
        ("login", b'{"email": "a@b.example", "password": "x", "is_root": true}'),
        ("login", b'{"email": "a@b.example", "password": "' + b"x" * 129 + b'"}'),
        ("login", b'{"email": ["a@b.example"], "password": {}}'),
        ("login", b"[]"),
        ("login", b""),
        ("login", b"\xff\xfe"),
        ("refresh", b'{"refresh_token": "x\\ny"}'),
        ("refresh", b'{"refresh_token": "' + b"x" * 201 + b'"}'),
        ("password-reset", b'{"email": "a@b.example\\n"}'),
        ("password-reset/confirm", b'{"token": "\\u0000", "new_password": "x"}'),
    ],
)
async def test_a_body_that_is_none_is_refused(api: Client, path: str, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = await api.post(f"/api/v1/auth/{path}", content=body, headers=headers)
    assert response.status_code in (400, 422), response.text
    assert response.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    "headers",
    [
        {"cookie": "hse_refresh=\xff; hse_access=\xff", "x-csrf-token": "\xff"},
        {"cookie": "hse_refresh=" + "x" * 4000},
        {"authorization": "Bearer \xff"},
        {"authorization": "Bearer"},
        {"x-api-key": "\xff"},
        {"origin": "http://[", "cookie": "hse_access=x"},
        {"origin": "\xff"},
    ],
)
@pytest.mark.parametrize("path", ["auth/refresh", "auth/logout", "establishments"])
async def test_headers_that_are_none_are_no_key(api: Client, headers: dict[str, str], path: str) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = await api.post(f"/api/v1/{path}", headers=raw)
    assert response.status_code in (204, 401, 403), response.text


@pytest.mark.parametrize("agent", [b"\x01\x02browser", b"\xff\xfe", b"x" * 3000])
async def test_any_user_agent_signs_in(api: Client, world: World, agent: bytes) -> None:
    world.give_password(world.chief)
    body = {"email": CHIEF, "password": PASSWORD}
    response = await api.post(LOGIN, headers=[(b"user-agent", agent)], json=body)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("more", [{"in_cookies": "yes"}, {"totp_code": "12345"}, {"recovery_code": ""}])
async def test_a_login_of_another_form_is_refused(api: Client, world: World, more: dict[str, Any]) -> None:
    world.give_password(world.chief)
    assert (await log_in(api, world.chief, **more)).status_code == 422
