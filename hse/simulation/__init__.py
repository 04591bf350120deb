"""Devices that are programs: synthetic fleets, and replays of recorded meter readings, over real sockets.

``hdp`` (a device's side of HDP/1), ``identities`` (who they are, and their boot counters), ``meters`` (recorded readings),
``sources`` (events by number), ``commanded`` (what is answered to commands), ``devices`` (keep, send, resend), ``fleet`` (many of
them), ``locks`` (a door's lock, without a clock or a socket), ``lock_fleet`` (locks that are connected and used).

Invariant: a simulated device behaves as PROTOCOL.md asks of a real one. What was not acknowledged is sent again, BUSY is waited
for, and after a restart nothing is sent under a sequence number that meant something else before.
"""
