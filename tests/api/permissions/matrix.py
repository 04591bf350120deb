"""The reviewed tables of what everybody may do: `rest.csv` and `graphql.csv` beside this file.

A cell is the status that the caller gets for one valid request: 2xx done, 401 sign in, 403 you may see it and not do this, or you
lack the action altogether, 404 there is no such thing for you, 409 it may be done, and a rule of the business is in the way (the
thing is in use). For lists, the number of items within the place stands behind the status.

GraphQL's refusals stand in the table as the statuses of their kinds. What a thing leads to is `null`, or a list of none, when the
caller may see the thing and not what it leads to; it is `hidden` when he is not shown the thing in the list that it stands in.

What may surprise, and is meant:
- To act on a thing answers 404 to who lacks the action that would show it, too: it is not there for him (`custom` and areas).
- Whoever is admin of some establishments sees the organisation, its people, invitations and keys, and acts on those that lie
  within his establishments (`unassigned`: 200 to read, 403 to act).
- Sites are made and people assigned by admins, not by partners: those actions are exclusive to the level (source plan 6.1.2).
- Whoever sees roles sees the system roles, and of their holders only those whom he sees anyway (`Role.users`).
- An import answers 422 with a report, row by row, where a single request would answer 403 or 404.

`make matrix` writes the tables anew; what a diff of them shows is what a review is about.
"""

import csv
from collections.abc import Iterable
from pathlib import Path

from tests.api.permissions.actors import ACTORS

HERE = Path(__file__).parent
HEADER = ["operation", "place", *ACTORS]

Row = tuple[str, str]
Table = dict[Row, list[str]]


def read(name: str) -> Table:
    """The reviewed table."""
    with (HERE / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == HEADER
    return {(row[0], row[1]): row[2:] for row in rows[1:]}


def write(name: str, table: Table) -> None:
    """Write the table as it is found now."""
    with (HERE / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows([operation, place, *cells] for (operation, place), cells in sorted(table.items()))


def differences(found: Table, reviewed: Table) -> Iterable[str]:
    """What is otherwise than the table says, in words."""
    for row in sorted(found.keys() | reviewed.keys()):
        if row not in reviewed:
            yield f"{row}: is not in the table; found {dict(zip(ACTORS, found[row], strict=True))}"
        elif row not in found:
            yield f"{row}: is in the table, and there is no such operation"
        else:
            for actor, is_, should in zip(ACTORS, found[row], reviewed[row], strict=True):
                if is_ != should:
                    yield f"{row}: {actor} gets {is_}, the table says {should}"
