"""The fleets that `hse simulate` runs: recorded meters, or synthetic devices."""

import time
from datetime import UTC, datetime
from pathlib import Path

from hse.failure import Failure
from hse.simulation.devices import Address, Device, Totals
from hse.simulation.identities import Identity, kept_number, load_identities, next_boot
from hse.simulation.meters import meters, read_series
from hse.simulation.sources import Replay, Synthetic


class NoDevices(Failure):
    """There is nobody to be."""


def replayed_meters(identities_path: Path, address: Address, totals: Totals, *, speed: float) -> list[Device]:
    """Return a device for each recorded meter that has an identity.

    The epoch is the UNIX time at which the replay was first begun, kept beside the identities: reading n of that replay is the
    same event for ever, so every later run goes on where the core's WELCOME says.
    """
    identities = {identity.name: identity for identity in load_identities(identities_path)}
    began_at = kept_number(identities_path.with_suffix(".began"), int(time.time()))
    devices = [
        Device(
            identity=identities[meter.name],
            epoch=began_at,
            source=Replay(series=read_series(meter).shifted(datetime.fromtimestamp(began_at, UTC)), speed=speed),
            address=address,
            totals=totals,
        )
        for meter in meters()
        if meter.name in identities
    ]
    if not devices:
        raise NoDevices(f"{identities_path} names no recorded meter; `hse up` enrols them")
    return devices


def synthetic_fleet(
    identities_path: Path, identities: list[Identity], address: Address, totals: Totals, *, rate: float, batch: int
) -> list[Device]:
    """Return a device for each identity; together they make `rate` events a second, each in bursts of `batch`.

    The epoch is a boot counter beside the identities. What a killed fleet had not yet been acknowledged is gone, as it is with
    a real device without a memory, and the next boot begins again at 1.
    """
    if not identities:
        raise NoDevices(f"{identities_path} names no devices")
    epoch = next_boot(identities_path.with_suffix(".boots"))
    share = rate / len(identities)
    return [
        Device(
            identity=identity,
            epoch=epoch,
            source=Synthetic(events_per_second=share, batch=batch, phase=index / len(identities)),
            address=address,
            totals=totals,
        )
        for index, identity in enumerate(identities)
    ]
