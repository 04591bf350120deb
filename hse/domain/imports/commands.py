"""The import: rows are read, put into an order in which what they hang on comes first, done, and reported on.

Rows are done in memory and written many at once (`ImportWork`). A level of the hierarchy is written before the next one is begun,
so what a row hangs on is either in the database or known to have failed.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from uuid import UUID

from hse.domain.errors import DomainError
from hse.domain.imports.cells import COLUMN_OF_FIELD, Draft, draft_of, uuid_of
from hse.domain.imports.model import Kind, Mode, Outcome, Report, Row, RowResult, Table
from hse.domain.imports.ports import Forms, ImportWork
from hse.domain.imports.rows import Done, Run, do_row, organization_of

# So many rows are written in one statement.
FLUSHED_ROWS = 250


async def import_sites(work: ImportWork, forms: Forms, table: Table, *, mode: Mode, is_dry_run: bool) -> Report:
    """Do what a table says. The caller keeps it if the report says that it is applied, and else rolls it back."""
    run = Run(work=work, forms=forms)
    results: dict[int, RowResult] = {}
    drafts = await _read(run, table, results)
    owners = await _owners(run, drafts, results)
    drafts = [draft for draft in drafts if draft.line in owners]
    await _look_up(run, drafts, set(owners.values()))
    for _, level in groupby(sorted(drafts, key=_level), key=_level):
        waiting = list(level)
        for start in range(0, len(waiting), FLUSHED_ROWS):
            await _do(run, waiting[start : start + FLUSHED_ROWS], owners, results)
    return _report([results[line] for line in sorted(results)], mode, is_dry_run=is_dry_run)


async def _read(run: Run, table: Table, results: dict[int, RowResult]) -> list[Draft]:
    drafts = []
    for row in table.rows:
        await run.work.give_way()
        try:
            drafts.append(draft_of(row, table.delimiter))
        except DomainError as error:
            run.fail_unread(row.cells, row.line)
            results[row.line] = _failed(row.line, row.cells.get("kind"), _shown_name(row), error)
    return drafts


async def _owners(run: Run, drafts: list[Draft], results: dict[int, RowResult]) -> dict[int, UUID]:
    """Whose each row is; a row of an organisation that the actor does not see fails."""
    named = {draft.organization for draft in drafts if draft.organization is not None}
    ids = {found for name in named if (found := uuid_of(name)) is not None}
    if named:
        for organization in await run.work.organizations_called(named, ids):
            run.known.put_organization(organization)
    owners = {}
    for draft in drafts:
        try:
            owners[draft.line] = organization_of(run, draft)
        except DomainError as error:
            results[draft.line] = _failed(draft.line, draft.kind.value, draft.name, error)
    return owners


async def _look_up(run: Run, drafts: list[Draft], owners: set[UUID]) -> None:
    """Know what the table may refer to: a few queries, however many rows there are."""
    names = {draft.establishment for draft in drafts if draft.establishment is not None}
    establishments = await run.work.establishments_called(owners, names)
    for establishment in establishments:
        run.known.put_establishment(establishment)
    changed = {draft.establishment for draft in drafts if draft.kind is Kind.AREA}
    await run.work.lock_trees([one.id for one in establishments if one.name in changed])
    run.known.put_areas(await run.work.areas_in([one.id for one in establishments]))
    of_devices = [draft for draft in drafts if draft.kind is Kind.DEVICE]
    gateways = {draft.gateway for draft in of_devices if draft.gateway is not None}
    serial_numbers = {draft.values["serial_number"] for draft in of_devices if "serial_number" in draft.values}
    if profiles := {draft.profile for draft in of_devices if draft.profile is not None}:
        for profile in await run.work.device_profiles_called(owners, profiles):
            run.known.put_profile(profile)
    if of_devices:
        called = {draft.name for draft in of_devices} | gateways
        for device in await run.work.devices_called(owners, called, serial_numbers | gateways):
            run.known.put_device(device)


def _level(draft: Draft) -> tuple[int, int]:
    """Establishments, then areas from outside inwards, then devices, then those behind a gateway."""
    match draft.kind:
        case Kind.ESTABLISHMENT:
            return (0, 0)
        case Kind.AREA:
            return (1, len(draft.path))
        case Kind.DEVICE:
            return (2, 0 if draft.gateway is None else 1)


async def _do(run: Run, drafts: list[Draft], owners: dict[int, UUID], results: dict[int, RowResult]) -> None:
    done: dict[int, tuple[Draft, Done]] = {}
    for draft in drafts:
        await run.work.give_way()
        run.work.begin_row(draft.line)
        try:
            done[draft.line] = (draft, await do_row(run, draft, owners[draft.line]))
        except DomainError as error:
            run.work.undo_row()
            run.fail(draft, owners[draft.line])
            results[draft.line] = _failed(draft.line, draft.kind.value, draft.name, error)
    for line, refusal in await run.work.flush():
        draft, what = done.pop(line)
        run.known.forget(what.id)
        run.fail(draft, owners[line])
        results[line] = _failed(line, draft.kind.value, draft.name, refusal)
    for line, (draft, what) in done.items():
        results[line] = RowResult(
            line=line, kind=draft.kind.value, name=draft.name, outcome=what.outcome, id=what.id, token=what.token
        )


def _failed(line: int, kind: str | None, name: str | None, error: DomainError) -> RowResult:
    field = getattr(error, "field", None)
    column = None if field is None else COLUMN_OF_FIELD.get(field, field)
    return RowResult(
        line=line,
        kind=kind,
        name=name,
        outcome=Outcome.FAILED,
        code=error.code,
        column=column,
        message=getattr(error, "reason", None) or str(error),
    )


def _shown_name(row: Row) -> str | None:
    return row.cells.get("name") or row.cells.get("area_path") or row.cells.get("establishment")


def _report(rows: list[RowResult], mode: Mode, *, is_dry_run: bool) -> Report:
    counted = dict.fromkeys(Outcome, 0)
    for row in rows:
        counted[row.outcome] += 1
    is_applied = not is_dry_run and (mode is Mode.ROW_BY_ROW or counted[Outcome.FAILED] == 0)
    return Report(
        is_dry_run=is_dry_run,
        mode=mode,
        is_applied=is_applied,
        created=counted[Outcome.CREATED],
        updated=counted[Outcome.UPDATED],
        unchanged=counted[Outcome.UNCHANGED],
        failed=counted[Outcome.FAILED],
        rows=rows if is_applied else list(_without_tokens(rows)),
    )


def _without_tokens(rows: Iterable[RowResult]) -> Iterable[RowResult]:
    """A token that is not kept is told to nobody."""
    return (row if row.token is None else replace(row, token=None) for row in rows)
