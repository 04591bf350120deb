"""Whatever tree a table describes, and in whatever order: the import makes that tree, and what is exported of it makes it again."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from hse.domain.imports.cells import path_text
from tests.api.conftest import Client
from tests.api.test_imports import Rows, as_csv, counts, send
from tests.api.world import World

# Lines of text as people write them, with what a path or a CSV must quote. An apostrophe in front quotes a formula.
NAMES = (
    st.text(
        st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]) | st.sampled_from('/\\",;= '),
        min_size=1,
        max_size=12,
    )
    .map(str.strip)
    .filter(lambda name: name and not name.startswith("'"))
)
EXPORT = {
    "establishment": """
        select name, timezone, latitude::text, longitude::text, address from establishments where organization_id = %s""",
    "area": """
        with recursive tree as (
            select a.*, array[a.name] as path from areas a where parent_area_id is null and organization_id = %s
            union all select a.*, tree.path || a.name from areas a join tree on a.parent_area_id = tree.id
        )
        select e.name as establishment, tree.path, tree.type, tree.floor::text
          from tree join establishments e on e.id = tree.establishment_id""",
    "device": """
        with recursive tree as (
            select a.id, array[a.name] as path from areas a where parent_area_id is null
            union all select a.id, tree.path || a.name from areas a join tree on a.parent_area_id = tree.id
        )
        select d.name, d.serial_number, d.device_type as type, d.mac_address::text, host(d.ip_address) as ip_address,
               d.is_enabled::text as enabled, nullif(d.metadata, '{}') as metadata, e.name as establishment, tree.path,
               coalesce(g.serial_number, g.name) as gateway
          from devices d
          left join establishments e on e.id = d.establishment_id
          left join tree on tree.id = d.area_id
          left join devices g on g.id = d.gateway_id
         where d.organization_id = %s""",
}


@dataclass
class Place:
    """Where a device can stand."""

    establishment: str
    path: tuple[str, ...] = ()

    @property
    def cells(self) -> dict[str, str]:
        """How a row says it."""
        return {"establishment": self.establishment} | ({"area_path": path_text(self.path)} if self.path else {})


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """The rows of some tree, shuffled."""
    rows: Rows = []
    places: list[Place] = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        location = draw(st.sampled_from([{}, {"latitude": "-33.41", "longitude": "-70.6"}]))
        rows.append({"kind": "establishment", "name": name, "timezone": "America/Santiago", **location})
        here = [Place(name)]
        for step in draw(st.lists(NAMES, max_size=6, unique=True)):
            around = draw(st.sampled_from(here))
            inner = Place(name, (*around.path, step))
            here.append(inner)
            rows.append({"kind": "area", "type": "office", "floor": str(len(inner.path)), **inner.cells})
        places += here
    gateways: list[str] = []
    for number, name in enumerate(draw(st.lists(NAMES, max_size=8, unique=True))):
        row = {"kind": "device", "name": name, "type": "meter", "enabled": str(draw(st.booleans())).lower()}
        row |= draw(st.sampled_from([{}, *(place.cells for place in places)]))
        row |= draw(st.sampled_from([{}, {"mac_address": "00:1b:44:11:3a:b7"}, {"ip_address": "2001:db8::1"}]))
        row |= draw(st.sampled_from([{}, {"metadata": json.dumps({"n": [number, name]})}]))
        if draw(st.booleans()):
            row["serial_number"] = f"{number} SN"
        if draw(st.booleans()) and gateways:
            row["gateway"] = draw(st.sampled_from(gateways))
        elif "serial_number" in row:
            gateways.append(row["serial_number"])
        rows.append(row)
    return draw(st.permutations(rows))


def exported(world: World, organization_id: UUID) -> Rows:
    """What is in the database, as a table."""
    rows: Rows = []
    with psycopg.connect(world.database_url, row_factory=dict_row) as connection:
        for kind, query in EXPORT.items():
            for found in connection.execute(query.encode(), [organization_id]):
                row: dict[str, Any] = {"kind": kind, **found}
                if (path := row.pop("path", None)) is not None:
                    row["area_path"] = path_text(tuple(path))
                if row.get("metadata") is not None:
                    row["metadata"] = json.dumps(row["metadata"])
                rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def in_one_order(rows: Rows) -> list[list[tuple[str, str]]]:
    return sorted(sorted(row.items()) for row in rows)


async def imported(api: Client, world: World, rows: Rows, organization_id: UUID) -> tuple[int, int, int, int]:
    owned = [{**row, "organization": str(organization_id)} for row in rows]
    response = await send(api, world.root, as_csv(owned))
    assert response.status_code == 200, response.text
    return counts(response.json())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables(), data=st.data())
async def test_any_tree_in_any_order_of_rows_is_made_and_made_again_of_its_export(
    api: Client, world: World, rows: Rows, data: st.DataObject
) -> None:
    with psycopg.connect(world.database_url) as connection:
        first, second = (
            connection.execute("insert into organizations (name) values (%s) returning id", [str(uuid4())]).fetchone()
            for _ in range(2)
        )
    assert first is not None
    assert second is not None
    assert await imported(api, world, rows, first[0]) == (len(rows), 0, 0, 0)
    export = exported(world, first[0])
    assert in_one_order(export) == in_one_order(rows)
    assert await imported(api, world, data.draw(st.permutations(export)), first[0]) == (0, 0, len(rows), 0)
    assert await imported(api, world, data.draw(st.permutations(export)), second[0]) == (len(rows), 0, 0, 0)
    assert in_one_order(exported(world, second[0])) == in_one_order(rows)
