"""`hse simulate`."""


def simulate() -> None:
    """."""
