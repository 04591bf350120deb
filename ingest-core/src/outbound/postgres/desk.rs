//! What devices ask the database for: their attributes, to be claimed, to be let in. What a device may is said by functions of the
//! database, beside the tables that they change (docs/device-attributes.md, docs/provisioning.md).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::connection::Database;
use super::few::FewConnections;
use crate::pipeline::attributes::Attributes;
use crate::pipeline::ports::{ClaimOutcome, SinkError};

/// Questions at a time; others wait.
const QUESTIONS_MAX: usize = 4;
/// Of strangers, who must not stand in the way of devices.
const STRANGERS_MAX: usize = 2;
/// For waiting, connecting and asking together.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The server gives up too, so that what nobody waits for does not go on.
const SET_TIMEOUT: &str = "set statement_timeout = 5000; set lock_timeout = 5000";

const ATTRIBUTES: &str = "select desired, reported from device_attributes where device_id = $1";
const OFFER_CLAIM: &str = "select hse_offer_claim($1, $2, $3)";
const PROVISION: &str = "select outcome, device_id from hse_provision_device($1, $2, $3, $4)";

/// A device that was let in: what it is known by from now on.
pub struct Provisioned {
    pub device_id: Uuid,
    pub token: String,
}

/// Answers from the database, and what it does for devices.
pub struct DeviceDesk {
    connections: FewConnections,
    for_strangers: FewConnections,
}

impl DeviceDesk {
    #[must_use]
    pub fn new(database: Database) -> Self {
        let few = |max| FewConnections::new(database.clone(), max, SET_TIMEOUT, QUESTION_TIMEOUT);
        Self {
            connections: few(QUESTIONS_MAX),
            for_strangers: few(STRANGERS_MAX),
        }
    }

    /// What a device reported and is desired to be.
    ///
    /// # Errors
    /// [`SinkError`] when the database is away or busy.
    pub async fn attributes(&self, device_id: Uuid) -> Result<Attributes, SinkError> {
        let read = async |client: &Client| {
            let row = client.query_opt(ATTRIBUTES, &[&device_id]).await?;
            row.map_or(Ok(Attributes::default()), |row| attributes(&row))
        };
        self.connections.ask(read).await
    }

    /// Has a device be claimed by who knows the code, for so long.
    ///
    /// # Errors
    /// [`SinkError`]; then nothing is known of it, and it may be offered again.
    pub async fn offer_claim(
        &self,
        device_id: Uuid,
        code_hash: [u8; 32],
        duration_ms: i64,
    ) -> Result<ClaimOutcome, SinkError> {
        let offer = async |client: &Client| {
            let given: [&(dyn ToSql + Sync); 3] = [&device_id, &code_hash.as_slice(), &duration_ms];
            let row = client.query_one(OFFER_CLAIM, &given).await?;
            Ok(ClaimOutcome::of(row.try_get(0)?))
        };
        self.connections.ask(offer).await
    }

    /// Lets a device in that has no token yet. None where it is not let in, for whatever reason.
    ///
    /// # Errors
    /// [`SinkError`]; the device may have been given a token that nobody knows.
    pub async fn provision(
        &self,
        key: &str,
        secret_hash: [u8; 32],
        serial_number: &str,
    ) -> Result<Option<Provisioned>, SinkError> {
        let token = new_token();
        let token_hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let ask = async |client: &Client| {
            let (secret_hash, token_hash) = (secret_hash.as_slice(), token_hash.as_slice());
            let given: [&(dyn ToSql + Sync); 4] = [&key, &secret_hash, &serial_number, &token_hash];
            let row = client.query_one(PROVISION, &given).await?;
            let (outcome, device_id): (&str, Option<Uuid>) = (row.try_get(0)?, row.try_get(1)?);
            tracing::info!(outcome, ?device_id, "a device came with a provisioning key");
            Ok(device_id.filter(|_| outcome == "provisioned"))
        };
        let device_id = self.for_strangers.ask(ask).await?;
        Ok(device_id.map(|device_id| Provisioned { device_id, token }))
    }
}

fn attributes(row: &Row) -> Result<Attributes, Error> {
    let object = |value| match value {
        Value::Object(object) => object,
        // The table checks that it is one.
        _ => serde_json::Map::new(),
    };
    Ok(Attributes {
        desired: object(row.try_get(0)?),
        reported: object(row.try_get(1)?),
    })
}

/// 32 random bytes, as the control plane makes them.
fn new_token() -> String {
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mixed = Sha256::new()
        .chain_update(one.as_bytes())
        .chain_update(other.as_bytes())
        .finalize();
    URL_SAFE_NO_PAD.encode(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_has_43_characters() {
        let (one, other) = (new_token(), new_token());
        assert_ne!(one, other);
        assert_eq!(one.len(), 43);
    }
}
