"""What request bodies are made of: structs that refuse unknown fields, and texts that can be stored."""

from typing import Annotated, Any

import msgspec

# Control characters are no part of a name; NUL cannot be stored at all.
# Python's $ lets a newline stand behind it, which the lookahead refuses; elsewhere it says nothing new.
LINE = r"^[^\x00-\x1f\x7f]*$(?!\n)"
# \s means more to Python, and another character to JavaScript, whose patterns the document holds: here it is the same for both.
NO_SPACE = r"[^@\s\x00-\x1f\x7f-\x9f\ufeff]"
TEXT = r"^[^\x00]*$"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=LINE, examples=["North tower"])]
# An address as letters go to it: dot-atoms of RFC 5322, of ASCII before the at sign, and no encoded words (=?...?=). With others no
# header can be written.
ATOM_BEFORE_AT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
ATOM_BEHIND_AT = r"""[^@.\s\x00-\x1f\x7f-\x9f\ufeff"(),:;<>\[\]\\]+"""
Email = Annotated[
    str,
    msgspec.Meta(
        min_length=3,
        max_length=254,
        pattern=rf"^(?!.*=\?){ATOM_BEFORE_AT}(\.{ATOM_BEFORE_AT})*@{ATOM_BEHIND_AT}(\.{ATOM_BEHIND_AT})*$(?!\n)",
        examples=["ana@example.com"],
    ),
]
# One that is compared with those that are kept, among which are older ones of other forms.
KnownEmail = Annotated[
    str,
    msgspec.Meta(
        min_length=3, max_length=254, pattern=rf"^{NO_SPACE}+@{NO_SPACE}+$(?!\n)", examples=["ana@example.com"]
    ),
]
PersonName = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=LINE, examples=["Ana"])]
Phone = Annotated[str, msgspec.Meta(max_length=50, pattern=LINE, examples=["+56 2 2345 6789"])]
Address = Annotated[str, msgspec.Meta(max_length=500, pattern=TEXT, examples=["Av. Apoquindo 3000, Santiago"])]
Latitude = Annotated[float, msgspec.Meta(ge=-90, le=90, examples=[-33.41])]
Longitude = Annotated[float, msgspec.Meta(ge=-180, le=180, examples=[-70.6])]
Metadata = dict[str, Any]


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A request body. In a change, a field that is absent stays as it is, and null empties it."""


def given(body: msgspec.Struct) -> dict[str, Any]:
    """The fields that the caller gave."""
    values = {name: getattr(body, name) for name in body.__struct_fields__}
    return {name: value for name, value in values.items() if value is not msgspec.UNSET}
