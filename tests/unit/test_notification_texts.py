"""Templates of what guests are sent: what may stand in one, what becomes of it, and that nothing in it is evaluated."""

from typing import get_args

import pytest

from hse.domain.booking.notification_texts import (
    DOOR_CODES,
    LANGUAGES,
    NAMES,
    Text,
    built_in,
    check_text,
    message_chars_max,
    names_for,
    rendered,
)
from hse.domain.booking.notifications import CHANNELS, TYPES, NotificationChannel, NotificationType
from hse.domain.errors import Invalid

VALUES = {name: name.upper() for name in NAMES}


def of(message: str, subject: str = "Hello") -> Text:
    return Text(subject=subject, message=message)


def test_every_built_in_text_is_one_that_could_be_stored_and_names_nothing_that_is_not_there() -> None:
    for kind in TYPES:
        for channel in CHANNELS:
            for language in LANGUAGES:
                text = built_in(kind, channel, language)
                check_text(text, kind, channel)
                shown = rendered(text, {**VALUES, DOOR_CODES: "Door: 123456"})
                assert "{{" not in shown.subject + shown.message
                assert ("123456" in shown.message) == (kind == "check_in_instructions")


def test_the_types_and_channels_are_those_that_there_are() -> None:
    assert set(TYPES) == set(get_args(NotificationType))
    assert set(CHANNELS) == set(get_args(NotificationChannel))


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("{{passport}}", "{{passport}}"),
        ("{{ guest_first_name.__class__ }}", "{{"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{"),
        ("{{ self._TemplateReference__context }}", "{{"),
        ("{{ config }}", "{{config}}"),
        ("{{ guest_first_name|attr('x') }}", "{{"),
        ("{{ 7*7 }}", "{{"),
        ("{{", "{{"),
        ("}}", "}}"),
        ("{{{{area_name}}}}", "{{"),
        ("{{area_\nname}}", "{{"),
        ("{{door_codes}}", "check_in_instructions only"),
        ("", "empty"),
        ("a" * 5001, "5000"),
        ("{{area_name}}" * 51, "50 placeholders"),
    ],
)
def test_what_is_no_known_placeholder_is_refused_and_named(message: str, named: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_text(of(message), "booking_created", "email")
    assert refused.value.field == "message"
    assert named in refused.value.reason


@pytest.mark.parametrize(
    "message", ["{% for x in range(10**9) %}a{% endfor %}", "${guest_first_name}", "%(area_name)s", "{0.__class__}"]
)
def test_other_languages_of_templates_are_plain_text(message: str) -> None:
    check_text(of(message), "booking_created", "email")
    assert rendered(of(message), VALUES).message == message


def test_a_subject_is_one_line_without_codes() -> None:
    for subject in ("two\nlines", "two\rlines", "{{door_codes}}", "a" * 151):
        with pytest.raises(Invalid, match=r"^subject"):
            check_text(of("fine", subject), "check_in_instructions", "email")


def test_short_messages_are_short() -> None:
    assert message_chars_max("sms") == message_chars_max("push") == 640
    with pytest.raises(Invalid, match="640"):
        check_text(of("a" * 641), "booking_created", "sms")


def test_what_is_put_in_is_not_looked_at_again_nor_writes_lines_of_its_own() -> None:
    values = {
        **VALUES,
        "guest_first_name": "{{door_codes}}",
        "area_name": "Room\r\nBcc: x@example.com\u202e\x00",
        DOOR_CODES: "1\n2",
    }
    shown = rendered(of("{{guest_first_name}} {{ area_name }}:{{door_codes}}", "For {{area_name}}"), values)
    assert shown.message == "{{door_codes}} Room Bcc: x@example.com:1\n2"
    assert shown.subject == "For Room Bcc: x@example.com"
    assert len(rendered(of("{{area_name}}"), {**VALUES, "area_name": "a" * 9999}).message) == 300


def test_only_instructions_name_codes() -> None:
    assert {kind for kind in TYPES if DOOR_CODES in names_for(kind)} == {"check_in_instructions"}
