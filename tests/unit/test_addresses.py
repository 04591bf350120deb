"""Addresses that are taken at the door can be written to."""

from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest
from aiosmtplib.email import extract_recipients
from hypothesis import given
from hypothesis import strategies as st

from hse.adapters.mail import Letter, message_of
from hse.api.bodies import Email

PATTERN = str(get_args(Email)[1].pattern)


def recipients_of(address: str) -> list[str]:
    """To whom a letter to this address goes."""
    letter = Letter(id=1, created_at=datetime.now(UTC), recipient=address, subject="x", text="y")
    return extract_recipients(message_of(letter, "HSE <hse@example.com>"))


@given(st.from_regex(PATTERN, fullmatch=True).filter(lambda address: len(address) <= 254))
def test_a_letter_to_an_address_that_was_taken_goes_to_it(address: str) -> None:
    assert recipients_of(msgspec.convert(address, Email)) == [address]


@pytest.mark.parametrize(
    "address", ["ana.soto+hotel@example.com", "o'higgins@example.cl", "ana@niñez.cl", "a@b", "a=b?@example.com"]
)
def test_addresses_of_people_are_taken(address: str) -> None:
    assert recipients_of(msgspec.convert(address, Email)) == [address]


@pytest.mark.parametrize(
    "address",
    [
        "a@example.com.",
        "a@b..c",
        "a@[",
        "a@[1.2.3.4]",
        "a.@b",
        ".a@b",
        "a,b@c",
        '"a b"@c',
        "a@b@c",
        "josé@b",
        "=?u?q?x?=@b",
    ],
)
def test_addresses_that_no_header_holds_as_they_are_written_are_refused(address: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(address, Email)
