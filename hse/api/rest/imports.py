"""Bulk import of establishments, areas and devices from a spreadsheet's file."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import anyio
import msgspec
from litestar import Request, Router, post
from litestar.datastructures import UploadFile
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Operation, RequestBody, Schema
from litestar.openapi.spec import OpenAPIMediaType as Content
from litestar.params import QueryParameter

from hse.adapters.postgres.bulk import BulkWork
from hse.adapters.postgres.work import PostgresWork
from hse.adapters.sheets import FILE_BYTES_MAX, failed_rows, read_table
from hse.api.acting import Acts, IdempotencyKey, once_for
from hse.api.bodies import Body, given
from hse.api.rest.devices import DeviceChange, NewDevice
from hse.api.rest.organizations import AreaChange, EstablishmentChange, NewArea, NewEstablishment
from hse.domain.devices.commands import ChangeDevice, CreateDevice
from hse.domain.errors import Invalid
from hse.domain.imports.commands import import_sites
from hse.domain.imports.model import ImportRefused, Mode, Report, Table, UnreadableTable
from hse.domain.organizations.commands import ChangeArea, ChangeEstablishment, CreateArea, CreateEstablishment
from hse.domain.policy import Actor

C = TypeVar("C")

# The file, and what a form puts around it.
REQUEST_BYTES_MAX = FILE_BYTES_MAX + (64 << 10)
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
BODY_OF: dict[type, type[Body]] = {
    CreateEstablishment: NewEstablishment,
    ChangeEstablishment: EstablishmentChange,
    CreateArea: NewArea,
    ChangeArea: AreaChange,
    CreateDevice: NewDevice,
    ChangeDevice: DeviceChange,
}


class RequestForms:
    """Checks the values of a row as the body of a single request is checked."""

    def filled(self, command: type[C], values: dict[str, Any]) -> C:
        """The command with these values. Raises `Invalid`."""
        try:
            body = msgspec.convert(values, BODY_OF[command])
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from error
        return command(**given(body))


def _invalid(message: str) -> Invalid:
    """The field and the reason out of "Expected `str` of length <= 200 - at `$.name`" or "Object missing required field `type`"."""
    reason, _, place = message.partition(" - at `$.")
    if place:
        return Invalid(place.rstrip("`").split(".")[0].split("[")[0], reason)
    return Invalid(message.split("`")[1] if "`" in message else "row", "is needed")


@dataclass
class ImportOperation(Operation):
    """The body is a file, by itself or in a form: the framework cannot see that in the handler."""

    def __post_init__(self) -> None:
        """Say what is sent."""
        file = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="A CSV (UTF-8) or XLSX file.")
        form = Schema(type=OpenAPIType.OBJECT, properties={"file": file}, required=["file"])
        example = "kind,establishment,area_path,name,type,timezone\nestablishment,,,North tower,,America/Santiago\n"
        self.request_body = RequestBody(
            required=True,
            content={
                "multipart/form-data": Content(schema=form),
                "text/csv": Content(schema=Schema(type=OpenAPIType.STRING, examples=[example])),
                XLSX: Content(schema=file),
            },
        )


@post(
    "/imports/sites",
    status_code=200,
    request_max_body_size=REQUEST_BYTES_MAX,
    operation_class=ImportOperation,
)
async def import_sites_file(
    request: Request[Any, Any, Any],
    acting: Acts,
    dry_run: Annotated[bool, QueryParameter(description="Do nothing; say what would come of it.")] = False,
    mode: Annotated[
        Mode, QueryParameter(description="What happens to good rows when some fail.")
    ] = Mode.ALL_OR_NOTHING,
    idempotency_key: IdempotencyKey = None,
) -> Report:
    """Make and change establishments, areas and devices from one flat table, CSV or XLSX (its first sheet).

    The first row names the columns, in any order: `kind` (establishment, area or device), `organization` (name or id; left out,
    it is your own), `establishment` (name), `area_path` (from outside inwards: `Tower A/Floor 2`; `\\/` is a slash in a name),
    `name`, `type` (of an area or a device), `timezone`, `address`, `latitude`, `longitude`, `floor`, `manufacturer`, `model`,
    `serial_number`, `mac_address`, `ip_address`, `protocol`, `modbus` (a JSON object), `gateway` (serial number or name),
    `profile` (name), `enabled` (true or false),
    `metadata` (a JSON object), `issue_token` (true gives a device a token if it has none; tokens are in this answer and nowhere
    else).

    The order of the rows does not matter. What exists is changed, what does not is made: an establishment is known by its
    organisation and name, an area by its establishment and path, a device by its serial number, or without one by place and name.
    An empty cell leaves a value as it is. Each row passes the checks and permissions of a single request.

    `error_file` of the report is a CSV of the rows that failed, to be mended and sent again. At most 10 000 rows, 100 columns and
    5 MiB.
    """
    # Nothing is read for who is nobody: the database has not said yet whose token or key this is.
    await acting.read(_actor)
    content = await _file_of(request)
    table = await anyio.to_thread.run_sync(read_table, content, limiter=request.app.state.file_readers)

    async def command(work: PostgresWork) -> Report:
        return await _imported(work, table, mode=mode, is_dry_run=dry_run)

    if dry_run:
        return await acting.try_out(command)
    once = acting if idempotency_key is None else once_for(request, acting, idempotency_key, content)
    return await once.run(command)


async def _actor(work: PostgresWork) -> Actor:
    return work.actor


async def _file_of(request: Request[Any, Any, Any]) -> bytes:
    """The file: the body itself, or the one of a form. Raises `UnreadableTable`."""
    media_type, _ = request.content_type
    if media_type != "multipart/form-data":
        return await request.body()
    files = [value for _, value in (await request.form()).multi_items() if isinstance(value, UploadFile)]
    if len(files) != 1:
        raise UnreadableTable("send one file in the form")
    return await files[0].read()


async def _imported(work: PostgresWork, table: Table, *, mode: Mode, is_dry_run: bool) -> Report:
    """Import, and raise `ImportRefused` when nothing of it may be kept, which rolls it back."""
    bulk = await BulkWork.within(work)
    report = await import_sites(bulk, RequestForms(), table, mode=mode, is_dry_run=is_dry_run)
    report = replace(report, error_file=failed_rows(table, report))
    if not report.is_applied and not is_dry_run:
        raise ImportRefused(report)
    return report


router = Router(path="/", tags=["imports"], route_handlers=[import_sites_file])
