"""Every guarantee, broken on purpose.

In reading order: ``wire`` (HDP/1 written from PROTOCOL.md alone, so that a mistake of the product's own codec cannot hide
itself), ``recorder`` (every send and every answer, as it happens), ``checker`` (afterwards: what was acknowledged is stored
exactly once, and nothing else is), ``load`` (devices that pipeline, reconnect, reboot and resend), ``core`` (the ingest core as a
real process), ``database`` (a PostgreSQL that can be killed and frozen), ``proxy`` (a wire to it that can be cut at COMMIT),
``control_plane`` (the api and the worker as processes), ``commands`` (sent whatever is away, and judged afterwards), ``planes``
(all of it, killed and frozen in turn and together), ``namespaces`` (a network between the planes that can be cut), ``disks`` (disks
that fill up, and disks that lose their power), ``powercut`` (`python -m tests.faults.powercut`).

Nothing here sleeps for a fixed time to let something happen: tests wait for conditions, with deadlines.
"""
