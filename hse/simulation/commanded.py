"""What simulated devices answer to commands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

UNKNOWN_COMMAND, INVALID = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a device answers to a command; status 0: done."""

    status: int = 0
    message: str | None = None
    data: Mapping[str, Any] | None = None


# What a device does when it is told something: the type of the command, and its params.
Does = Callable[[str, Mapping[str, Any]], Answer]


@dataclass(slots=True)
class Configurable:
    """A device that can be asked whether it is there, and keeps the settings that it is given."""

    settings: dict[str, Any] = field(default_factory=dict)

    def do(self, command_type: str, params: Mapping[str, Any]) -> Answer:
        """Do what a command says."""
        match command_type:
            case "ping":
                return Answer(data={"settings": self.settings})
            case "set":
                self.settings.update(params)
                return Answer(data={"settings": self.settings})
            case _:
                return Answer(status=UNKNOWN_COMMAND, message="a simulated device knows ping and set")
