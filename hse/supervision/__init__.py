"""`hse up`: the processes of one machine, their order, their restarts, and the live view of them.

In reading order: ``child`` (one supervised process), ``machine`` (all of
them: start, watch, drain), ``published`` (what the machine tells others: ``up.json``), ``readings`` (numbers of the running
core and database), ``view`` (those numbers as a terminal picture).

Invariants: one supervisor per data directory (a lock); a child never outlives it; the simulator stops before the core, the
core before the database. Deliberately absent: daemonising, log rotation, resource limits. That is what systemd is for, and
in production each process is started by itself.
"""
