"""How fast HSE is, beside its floors and its peer: `python -m benches`, see benches/README.md.

run.py        the command line, the rounds, the results
scenarios/    one file a question; each starts a fresh system, measures in rounds, and checks what it measured
stack.py      the system under test: `hse up` on a fresh data directory
servers.py    what the scenarios start beside it: PostgreSQL by itself, the core by itself, the literal design
loadgen.py    the Rust program that makes load, floors and peer
counters.py   what processes, PostgreSQL and the core say about themselves
machine.py    what the numbers were measured on
report.py     medians, ratios, verdicts, the table
"""
