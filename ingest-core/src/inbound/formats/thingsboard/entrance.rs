//! How devices get in: provisioning with a key, and the code that a device may be claimed with.

use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::inbound::formats::FormatError;

/// A code is looked for among all that wait, so one that is short could be somebody else's.
const CODE_CHARS_MIN: usize = 8;
/// Longer ones nobody could claim it with: the control plane takes as many.
const CODE_BYTES_MAX: usize = 60;
const DURATION_MS_DEFAULT: i64 = 24 * 3600 * 1000;
const DURATION_MS_MAX: i64 = 31 * DURATION_MS_DEFAULT;

/// A device lets itself be claimed, by who knows the code.
#[derive(Debug, PartialEq, Eq)]
pub struct ClaimOffer {
    pub code_hash: [u8; 32],
    pub duration_ms: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaidClaim {
    secret_key: String,
    duration_ms: Option<i64>,
}

impl ClaimOffer {
    /// Reads `{"secretKey", "durationMs"}`.
    ///
    /// # Errors
    /// It is none, or its code is too short.
    pub fn read(payload: &[u8]) -> Result<Self, FormatError> {
        Self::of(serde_json::from_slice(payload).map_err(unsaid)?)
    }

    fn of(said: SaidClaim) -> Result<Self, FormatError> {
        // As people type it: small letters, spaces and hyphens are nothing to a code.
        let typed = said.secret_key.to_uppercase();
        let code: String = typed
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .collect();
        if code.chars().count() < CODE_CHARS_MIN || code.len() > CODE_BYTES_MAX {
            return Err(FormatError::Shape(
                "secretKey has at least 8 letters and digits, and 60 bytes at most",
            ));
        }
        let duration_ms = said.duration_ms.unwrap_or(DURATION_MS_DEFAULT);
        if duration_ms <= 0 {
            return Err(FormatError::Shape("durationMs is above 0"));
        }
        Ok(Self {
            code_hash: Sha256::digest(code.as_bytes()).into(),
            duration_ms: duration_ms.min(DURATION_MS_MAX),
        })
    }
}

/// Reads a gateway's offers for its children, `{"child": {"secretKey", "durationMs"}, ...}`.
///
/// # Errors
/// One of them is none; nothing of it counts.
pub fn gateway_claims(payload: &[u8]) -> Result<Vec<(String, ClaimOffer)>, FormatError> {
    let by_child: std::collections::BTreeMap<String, SaidClaim> =
        serde_json::from_slice(payload).map_err(unsaid)?;
    let offers = by_child
        .into_iter()
        .map(|(child, said)| ClaimOffer::of(said).map(|offer| (child, offer)));
    offers.collect()
}

/// An error of the parser may repeat what is a secret.
fn unsaid(_: serde_json::Error) -> FormatError {
    FormatError::Shape("not a claim: {\"secretKey\": text, \"durationMs\": number}")
}

/// A device without a token asks for one.
#[derive(PartialEq, Eq)]
pub struct ProvisionRequest {
    pub key: String,
    pub secret_hash: [u8; 32],
    pub serial_number: String,
}

impl fmt::Debug for ProvisionRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("ProvisionRequest");
        shown.field("serial_number", &self.serial_number);
        shown.finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaidProvision {
    #[serde(default)]
    device_name: String,
    provision_device_key: String,
    provision_device_secret: String,
    credentials_type: Option<String>,
    token: Option<Value>,
}

impl ProvisionRequest {
    /// Reads `{"deviceName", "provisionDeviceKey", "provisionDeviceSecret"}`.
    ///
    /// # Errors
    /// It is none, or asks for another token than one of ours.
    pub fn read(payload: &[u8]) -> Result<Self, FormatError> {
        let said: SaidProvision = serde_json::from_slice(payload).map_err(|_| {
            // An error of the parser may repeat what is a secret.
            FormatError::Shape(
                "deviceName, provisionDeviceKey and provisionDeviceSecret are needed",
            )
        })?;
        let is_ours = matches!(
            said.credentials_type.as_deref(),
            None | Some("ACCESS_TOKEN")
        );
        if !is_ours || said.token.is_some_and(|token| !token.is_null()) {
            return Err(FormatError::Shape(
                "a device is given a token that is made here, and no other credentials",
            ));
        }
        Ok(Self {
            key: said.provision_device_key,
            secret_hash: Sha256::digest(said.provision_device_secret.as_bytes()).into(),
            serial_number: said.device_name,
        })
    }
}

/// What a device is told that got in.
#[must_use]
pub fn provisioned(token: &str) -> Value {
    json!({"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN", "credentialsValue": token})
}

/// What it is told that did not, whatever the reason was: a stranger learns nothing.
#[must_use]
pub fn provision_failure() -> Value {
    json!({"status": "FAILURE", "errorMsg": "not provisioned"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_same_however_it_is_typed() {
        let read = |code: &str| {
            let payload = json!({"secretKey": code, "durationMs": 60000});
            ClaimOffer::read(payload.to_string().as_bytes())
        };
        let offer = read("K7MX-2P9Q-RT4C-7WXY").unwrap();
        assert_eq!(read("k7mx 2p9q rt4c 7wxy").unwrap(), offer);
        let expected: [u8; 32] = Sha256::digest(b"K7MX2P9QRT4C7WXY").into();
        assert_eq!((offer.code_hash, offer.duration_ms), (expected, 60000));
        for refused in ["", "1234567", "a - - b", &"x".repeat(300)] {
            assert!(read(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn what_is_refused_is_not_repeated() {
        let secret = "hunter2-hunter2";
        let payloads = [
            json!({"secretKey": [secret]}),
            json!({"secretKey": secret, "durationMs": 0}),
            json!(secret),
        ];
        for payload in payloads {
            let error = ClaimOffer::read(payload.to_string().as_bytes()).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let error = ProvisionRequest::read(format!("{{\"{secret}\"").as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn a_gateway_offers_its_children() {
        let payload =
            br#"{"A": {"secretKey": "12345678"}, "B": {"secretKey": "abcdefgh", "durationMs": 5}}"#;
        let offers = gateway_claims(payload).unwrap();
        let names: Vec<_> = offers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "B"]);
        assert_eq!(offers[0].1.duration_ms, DURATION_MS_DEFAULT);
        assert!(gateway_claims(br#"{"A": {"secretKey": "1"}}"#).is_err());
    }

    #[test]
    fn a_token_that_a_device_brings_is_refused() {
        let request = |more: &str| {
            let said =
                r#""deviceName": "S-1", "provisionDeviceKey": "k", "provisionDeviceSecret": "s""#;
            ProvisionRequest::read(format!("{{{said}{more}}}").as_bytes())
        };
        let read = request("").unwrap();
        assert_eq!(
            (read.key.as_str(), read.serial_number.as_str()),
            ("k", "S-1")
        );
        assert!(!format!("{read:?}").contains("key"));
        assert!(request(r#", "credentialsType": "ACCESS_TOKEN""#).is_ok());
        assert!(request(r#", "credentialsType": "ACCESS_TOKEN", "token": "mine""#).is_err());
        assert!(request(r#", "credentialsType": "X509_CERTIFICATE", "hash": "c""#).is_err());
    }
}
