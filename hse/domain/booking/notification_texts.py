"""The texts that guests are sent: how a template is read, what may stand in it, and those that are built in.

A template is a text with places such as `{{guest_first_name}}`, and nothing else: no conditions, loops or expressions. Who writes
one is a stranger to the platform, and of a language without expressions nothing can be abused: there is nothing to evaluate, what
it may name is a list of words, and its time and size follow from its length. What is put in is not looked at again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hse.domain.booking.notifications import NotificationChannel, NotificationType
from hse.domain.errors import Invalid

Language = Literal["es", "en"]
LANGUAGES: tuple[Language, ...] = ("es", "en")

SUBJECT_CHARS_MAX = 150
EMAIL_CHARS_MAX = 5000
SHORT_CHARS_MAX = 640
PLACES_MAX = 50
VALUE_CHARS_MAX = 300
CODES_CHARS_MAX = 2000

PLACE = re.compile(r"\{\{[ \t]*([a-z][a-z_]{0,39})[ \t]*\}\}")
BRACES = re.compile(r"\{\{|\}\}")
# Not a line break nor a tab, which `one_line` makes spaces of.
UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
SPACES = re.compile(r"[ \t\r\n]+")

DOOR_CODES = "door_codes"
NAMES: frozenset[str] = frozenset(
    {
        "guest_first_name",
        "guest_last_name",
        "organization_name",
        "establishment_name",
        "area_name",
        "confirmation_code",
        "num_guests",
        "num_nights",
        "check_in_date",
        "check_in_time",
        "check_out_date",
        "check_out_time",
        "time_zone",
    }
)


# For previews.
SAMPLE_VALUES: Mapping[Language, Mapping[str, str]] = {
    "es": {
        "guest_first_name": "Carmen",
        "guest_last_name": "Rojas",
        "organization_name": "Hoteles del Sur",
        "establishment_name": "Hotel Costanera",
        "area_name": "Habitación 204",
        "confirmation_code": "K7MX2P9QRT",
        "num_guests": "2",
        "num_nights": "3",
        "check_in_date": "miércoles, 10 de julio de 2030",
        "check_in_time": "15:00",
        "check_out_date": "sábado, 13 de julio de 2030",
        "check_out_time": "11:00",
        "time_zone": "hora de Chile",
        DOOR_CODES: "Puerta principal: 000000\nHabitación 204: 000000",
    },
    "en": {
        "guest_first_name": "Carmen",
        "guest_last_name": "Rojas",
        "organization_name": "Southern Hotels",
        "establishment_name": "Hotel Costanera",
        "area_name": "Room 204",
        "confirmation_code": "K7MX2P9QRT",
        "num_guests": "2",
        "num_nights": "3",
        "check_in_date": "Wednesday, July 10, 2030",
        "check_in_time": "3:00 PM",
        "check_out_date": "Saturday, July 13, 2030",
        "check_out_time": "11:00 AM",
        "time_zone": "Chile Time",
        DOOR_CODES: "Front door: 000000\nRoom 204: 000000",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What a template says, or what became of it: an e-mail's subject and text, or a short message with a title."""

    subject: str
    message: str


def names_for(kind: NotificationType) -> frozenset[str]:
    """What a template of this type may name."""
    return NAMES | {DOOR_CODES} if kind == "check_in_instructions" else NAMES


def message_chars_max(channel: NotificationChannel) -> int:
    """How long a template's message may be."""
    return EMAIL_CHARS_MAX if channel == "email" else SHORT_CHARS_MAX


def check_text(text: Text, kind: NotificationType, channel: NotificationChannel) -> None:
    """Raises `Invalid` for a template that cannot be used, naming what is wrong with it."""
    _check_field("subject", text.subject, kind, SUBJECT_CHARS_MAX)
    _check_field("message", text.message, kind, message_chars_max(channel))
    if DOOR_CODES in PLACE.findall(text.subject):
        raise Invalid("subject", "must not name {{door_codes}}: a subject is shown on locked screens")
    if "\n" in text.subject or "\r" in text.subject:
        raise Invalid("subject", "must be one line")


def _check_field(field: str, text: str, kind: NotificationType, chars_max: int) -> None:
    if not text.strip():
        raise Invalid(field, "must not be empty")
    if len(text) > chars_max:
        raise Invalid(field, f"must have {chars_max} characters at most")
    places = PLACE.findall(text)
    if len(places) > PLACES_MAX:
        raise Invalid(field, f"must have {PLACES_MAX} placeholders at most")
    known = names_for(kind)
    for name in places:
        if name == DOOR_CODES and name not in known:
            raise Invalid(field, "{{door_codes}} may stand in check_in_instructions only")
        if name not in known:
            raise Invalid(field, f"{{{{{name}}}}} is unknown: there are {', '.join(sorted(known))}")
    left = BRACES.search(PLACE.sub("", text))
    if left is not None:
        raise Invalid(field, f"has {left.group()} that belongs to no placeholder: one looks like {{{{area_name}}}}")


def rendered(text: Text, values: Mapping[str, str]) -> Text:
    """A template with these values put in; each must be there that it names."""
    shown = {name: one_line(value)[:VALUE_CHARS_MAX] for name, value in values.items() if name != DOOR_CODES}
    if DOOR_CODES in values:
        shown[DOOR_CODES] = UNSEEN.sub("", values[DOOR_CODES])[:CODES_CHARS_MAX]
    subject = PLACE.sub(lambda found: shown[found[1]], text.subject)
    return Text(subject=one_line(subject), message=PLACE.sub(lambda found: shown[found[1]], text.message))


def one_line(text: str) -> str:
    """Without line breaks, and without characters that nobody sees: who names himself must not write the rest of a letter."""
    return SPACES.sub(" ", UNSEEN.sub("", text)).strip()


def built_in(kind: NotificationType, channel: NotificationChannel, language: Language) -> Text:
    """The text where an organisation has none of its own."""
    subject, letter, short = BUILT_IN[language][kind]
    if channel != "email":
        return Text(subject=subject, message=short)
    opening, closing = FRAME[language]
    return Text(subject=subject, message=f"{opening}\n\n{letter}\n\n{closing}\n")


FRAME: Mapping[Language, tuple[str, str]] = {
    "es": ("Hola, {{guest_first_name}}:", "{{establishment_name}}\n{{organization_name}}"),
    "en": ("Hello {{guest_first_name}},", "{{establishment_name}}\n{{organization_name}}"),
}
STAY: Mapping[Language, str] = {
    "es": (
        "Espacio: {{area_name}}\nEntrada: {{check_in_date}}, {{check_in_time}}\nSalida: {{check_out_date}}, {{check_out_time}}\n"
        "Personas: {{num_guests}}\nCódigo de reserva: {{confirmation_code}}\n\nLas horas son las del lugar ({{time_zone}})."
    ),
    "en": (
        "Room: {{area_name}}\nCheck-in: {{check_in_date}}, {{check_in_time}}\nCheck-out: {{check_out_date}}, {{check_out_time}}\n"
        "Guests: {{num_guests}}\nConfirmation code: {{confirmation_code}}\n\nTimes are those of the place ({{time_zone}})."
    ),
}

# Subject, letter, short message.
BUILT_IN: Mapping[Language, Mapping[NotificationType, tuple[str, str, str]]] = {
    "es": {
        "booking_created": (
            "Recibimos tu reserva en {{establishment_name}}",
            f"Recibimos tu reserva. Te avisaremos cuando esté confirmada.\n\n{STAY['es']}",
            "{{establishment_name}}: recibimos tu reserva {{confirmation_code}} desde el {{check_in_date}}. "
            "Te avisaremos cuando esté confirmada.",
        ),
        "booking_confirmed": (
            "Tu reserva en {{establishment_name}} está confirmada",
            f"Tu reserva está confirmada.\n\n{STAY['es']}",
            "{{establishment_name}}: tu reserva {{confirmation_code}} está confirmada. "
            "Entrada: {{check_in_date}}, {{check_in_time}}.",
        ),
        "check_in_instructions": (
            "Tu acceso a {{establishment_name}}",
            f"Tus códigos de acceso:\n\n{{{{door_codes}}}}\n\nFuncionan desde tu entrada hasta tu salida.\n\n{STAY['es']}",
            "{{establishment_name}}: tu acceso desde el {{check_in_date}}, {{check_in_time}}: {{door_codes}}",
        ),
        "booking_modified": (
            "Tu reserva en {{establishment_name}} ha cambiado",
            f"Tu reserva ha cambiado. Ahora es así:\n\n{STAY['es']}",
            "{{establishment_name}}: tu reserva {{confirmation_code}} ha cambiado. Entrada: {{check_in_date}}, {{check_in_time}}. "
            "Salida: {{check_out_date}}, {{check_out_time}}.",
        ),
        "booking_cancelled": (
            "Tu reserva en {{establishment_name}} está cancelada",
            f"Tu reserva está cancelada. Era esta:\n\n{STAY['es']}",
            "{{establishment_name}}: tu reserva {{confirmation_code}} desde el {{check_in_date}} está cancelada.",
        ),
        "check_out_reminder": (
            "Tu salida de {{establishment_name}}",
            "Te recordamos que tu salida es el {{check_out_date}}, {{check_out_time}} ({{time_zone}}).\n\nEspacio: {{area_name}}",
            "{{establishment_name}}: tu salida es el {{check_out_date}}, {{check_out_time}}.",
        ),
    },
    "en": {
        "booking_created": (
            "We received your booking at {{establishment_name}}",
            f"We received your booking. We will write to you once it is confirmed.\n\n{STAY['en']}",
            "{{establishment_name}}: we received your booking {{confirmation_code}} from {{check_in_date}}. "
            "We will write to you once it is confirmed.",
        ),
        "booking_confirmed": (
            "Your booking at {{establishment_name}} is confirmed",
            f"Your booking is confirmed.\n\n{STAY['en']}",
            "{{establishment_name}}: your booking {{confirmation_code}} is confirmed. "
            "Check-in: {{check_in_date}}, {{check_in_time}}.",
        ),
        "check_in_instructions": (
            "Your access to {{establishment_name}}",
            f"These are your door codes:\n\n{{{{door_codes}}}}\n\nThey work from your check-in to your check-out.\n\n{STAY['en']}",
            "{{establishment_name}}: your access from {{check_in_date}}, {{check_in_time}}: {{door_codes}}",
        ),
        "booking_modified": (
            "Your booking at {{establishment_name}} has changed",
            f"Your booking has changed. It is now as follows:\n\n{STAY['en']}",
            "{{establishment_name}}: your booking {{confirmation_code}} has changed. "
            "Check-in: {{check_in_date}}, {{check_in_time}}. Check-out: {{check_out_date}}, {{check_out_time}}.",
        ),
        "booking_cancelled": (
            "Your booking at {{establishment_name}} is cancelled",
            f"Your booking is cancelled. It was this one:\n\n{STAY['en']}",
            "{{establishment_name}}: your booking {{confirmation_code}} from {{check_in_date}} is cancelled.",
        ),
        "check_out_reminder": (
            "Your check-out from {{establishment_name}}",
            "A reminder that your check-out is on {{check_out_date}}, {{check_out_time}} ({{time_zone}}).\n\nRoom: {{area_name}}",
            "{{establishment_name}}: your check-out is on {{check_out_date}}, {{check_out_time}}.",
        ),
    },
}
