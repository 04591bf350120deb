//! What was stored of each (device, epoch), read and extended under the row's lock.
//!
//! Every drain of every node locks rows in the order of their key, so drains wait for each other and rarely deadlock; a
//! deadlock is an attempt more. A row that is missing is made first: two nodes that store the first events of one device
//! then meet at it.

use std::collections::BTreeMap;

use tokio_postgres::{Error, Transaction};
use tracing::error;
use uuid::Uuid;

use crate::pipeline::ranges::SequenceRanges;

/// By (device, epoch).
pub type Sequences = BTreeMap<(Uuid, u64), SequenceRanges>;

const LOCK: &str = "
    select s.device_id, s.epoch,
           array(select lower(r) from unnest(s.stored) r order by 1), array(select upper(r) from unnest(s.stored) r order by 1)
      from device_sequences s
      join unnest($1::uuid[], $2::int8[]) as wanted(device_id, epoch) using (device_id, epoch)
     order by s.device_id, s.epoch
       for update of s";

const MAKE: &str = "
    insert into device_sequences (device_id, epoch, stored)
    select device_id, epoch, '{}' from unnest($1::uuid[], $2::int8[]) as missing(device_id, epoch)
     order by device_id, epoch
    on conflict do nothing";

const SET: &str = "
    update device_sequences s set stored = new.stored::int8multirange, updated_at = now()
      from unnest($1::uuid[], $2::int8[], $3::text[]) as new(device_id, epoch, stored)
     where s.device_id = new.device_id and s.epoch = new.epoch";

/// Locks the rows of `wanted` and reads what they hold.
///
/// # Errors
/// What the database says.
pub async fn lock(transaction: &Transaction<'_>, wanted: &Sequences) -> Result<Sequences, Error> {
    let mut found = lock_existing(transaction, wanted.keys().copied()).await?;
    if found.len() < wanted.len() {
        let missing: Vec<_> = wanted
            .keys()
            .filter(|key| !found.contains_key(key))
            .copied()
            .collect();
        let (devices, epochs) = columns(missing.iter().copied());
        transaction.execute(MAKE, &[&devices, &epochs]).await?;
        found.append(&mut lock_existing(transaction, missing.into_iter()).await?);
    }
    Ok(found)
}

async fn lock_existing(
    transaction: &Transaction<'_>,
    keys: impl Iterator<Item = (Uuid, u64)>,
) -> Result<Sequences, Error> {
    let (devices, epochs) = columns(keys);
    let rows = transaction.query(LOCK, &[&devices, &epochs]).await?;
    rows.iter()
        .map(|row| {
            let (lowers, uppers): (Vec<i64>, Vec<i64>) = (row.try_get(2)?, row.try_get(3)?);
            let ranges = lowers
                .into_iter()
                .zip(uppers)
                .map(|(lower, upper)| lower.cast_unsigned()..upper.cast_unsigned());
            Ok((
                (row.try_get(0)?, row.try_get::<_, i64>(1)?.cast_unsigned()),
                ranges.collect(),
            ))
        })
        .collect()
}

/// Writes what `stored` and `added` hold together.
///
/// # Errors
/// What the database says.
pub async fn extend(
    transaction: &Transaction<'_>,
    mut stored: Sequences,
    added: &Sequences,
) -> Result<(), Error> {
    for (key, ranges) in added {
        let merged = stored.entry(*key).or_default();
        merged.extend(ranges);
        if merged.num_closed_gaps() > 0 {
            error!(device_id = %key.0, epoch = key.1, "device leaves too many gaps in its sequence; events that would fill the oldest are given up");
        }
    }
    let (devices, epochs) = columns(stored.keys().copied());
    let multiranges: Vec<String> = stored.values().map(SequenceRanges::to_multirange).collect();
    transaction
        .execute(SET, &[&devices, &epochs, &multiranges])
        .await?;
    Ok(())
}

// Epochs and sequence numbers are refused beyond i64 at the door (see `frame`), so the casts keep their values.
fn columns(keys: impl Iterator<Item = (Uuid, u64)>) -> (Vec<Uuid>, Vec<i64>) {
    keys.map(|(device, epoch)| (device, epoch.cast_signed()))
        .unzip()
}
