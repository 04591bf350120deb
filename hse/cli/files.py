"""Open files of a process that holds many connections."""

import resource


def take_all_files() -> None:
    """A socket a connection: take what the system allows, as nobody sets the soft limit for a daemon."""
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
