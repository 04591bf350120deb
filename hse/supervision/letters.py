"""What is told of the letters that the worker writes into files, where no mail server is set: else nobody would get their links."""

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default as default_policy
from pathlib import Path

LINK = re.compile(r"https?://\S+")


class Letters:
    """The letters that come after this was made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known = set(self._names())

    def new(self) -> Iterator[str]:
        """One line for each letter that came since it was asked last, and one for the link that it holds."""
        for name in sorted(set(self._names()) - self._known):
            self._known.add(name)
            path = self._directory / name
            # Written aside and renamed, so it is whole, if it is ours.
            try:
                letter = message_from_bytes(path.read_bytes(), policy=default_policy)
                text = letter.get_content()
            except (OSError, LookupError) as error:
                yield f"{path} is no letter that can be read: {error}"
                continue
            yield f"mail for {letter['To']} ({letter['Subject']}) is in {path}"
            if (link := LINK.search(text)) is not None:
                yield link.group()

    def _names(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        return [path.name for path in self._directory.iterdir() if path.suffix == ".eml"]
