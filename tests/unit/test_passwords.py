"""Which passwords are refused, and why; and that hashing them waits its turn."""

import asyncio
import os

import pytest

from hse.adapters import passwords as adapter
from hse.adapters.passwords import Argon2Passwords
from hse.domain.identity.passwords import PasswordsOverloaded, WeakPassword, hash_new_password

ANA = ["ana.sotomayor@brightwater.example", "Anabel", "Sotomayor"]
PASSWORDS = Argon2Passwords(memory_kib=64)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "12 characters"),
        ("x7#Kq9!wZp2", "12 characters"),
        ("x" * 129, "128 characters"),
        ("aaaaaaaaaaaaaaaa", "repeats"),
        ("abcdefghijklmnop", "sequences"),
        ("password1234", "common"),
        ("trustno1trustno1", ""),
        ("qwertyuiop123", ""),
        ("123456789012", ""),
        ("iloveyou2010!", ""),
        ("p@ssw0rdp@ssw0rd", ""),
        ("otters juggle Sotomayor 77", "your name"),
        ("ANABEL juggles seven plums", "your name"),
        ("seven brightwater plums", "e-mail"),
    ],
)
async def test_a_password_that_would_be_guessed_is_refused_with_the_reason(password: str, reason: str) -> None:
    with pytest.raises(WeakPassword) as refused:
        await hash_new_password(PASSWORDS, password, ANA)
    assert reason in refused.value.reason


@pytest.mark.parametrize(
    "password", ["seven otters juggle plums", "x7#Kq9!wZp2v", "siete nutrias hacen malabares ñandú", "q" + "Zw8-" * 31]
)
async def test_a_password_that_is_hard_to_guess_is_taken(password: str) -> None:
    password_hash = await hash_new_password(PASSWORDS, password, ANA)
    assert await PASSWORDS.verify(password_hash, password)
    assert not await PASSWORDS.verify(password_hash, password + "x")


async def test_the_same_password_typed_on_another_keyboard_is_the_same() -> None:
    password_hash = await PASSWORDS.hash("contrase\u00f1a de siete nutrias")
    assert await PASSWORDS.verify(password_hash, "contrasen\u0303a de siete nutrias")


async def test_one_users_name_is_nothing_to_another() -> None:
    password = "plums for zanzibarella"
    with pytest.raises(WeakPassword):
        await hash_new_password(PASSWORDS, password, ["Zanzibarella"])
    judged = await asyncio.gather(
        PASSWORDS.judge(password, ["plums", "zanzibarella"]), *(PASSWORDS.judge(password, []) for _ in range(5))
    )
    assert judged[0].score < min(one.score for one in judged[1:])


async def test_a_crowd_is_told_to_come_back_and_those_before_it_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "WAITING_MAX", 4)
    passwords = Argon2Passwords(at_once_max=2)
    answers = await asyncio.gather(*(passwords.hash("seven otters") for _ in range(20)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, PasswordsOverloaded)]
    assert len(refused) == 14
    assert len([answer for answer in answers if isinstance(answer, str)]) == 6


async def test_a_wait_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "WAIT_SECONDS_MAX", 0.001)
    passwords = Argon2Passwords(at_once_max=1)
    answers = await asyncio.gather(*(passwords.hash("seven otters") for _ in range(3)), return_exceptions=True)
    assert [isinstance(answer, PasswordsOverloaded) for answer in answers] == [False, True, True]


async def test_the_work_gives_way_to_all_else_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    found = []

    def judged(*_: object, **__: object) -> dict[str, object]:
        # Of the thread that asks, though it is called a process.
        found.append(os.getpriority(os.PRIO_PROCESS, 0))
        return {"score": 4, "feedback": {"warning": ""}}

    monkeypatch.setattr(adapter, "zxcvbn", judged)
    await Argon2Passwords().judge("seven otters", [])
    assert found == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) == niceness


async def test_without_a_hash_no_password_is_right_not_even_the_one_it_is_compared_with() -> None:
    assert not await PASSWORDS.verify(None, "nobody's password")
