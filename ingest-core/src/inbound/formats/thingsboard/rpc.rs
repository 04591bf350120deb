//! RPC: a command is a request with a number, its result the response; a device may ask as well, of which little is served.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::inbound::formats::{self, FormatError};

/// The body of a RESULT frame that says what a response does.
///
/// # Errors
/// It is neither JSON nor text.
pub fn result_body(request_id: &str, payload: &[u8]) -> Result<Vec<u8>, FormatError> {
    let text = std::str::from_utf8(payload)?;
    let answer = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    formats::result_body(request_id, 0, "", answer)
}

/// What a request says. `params` is the JSON of a command's parameters.
#[must_use]
pub fn request_message(method: &str, params: &[u8]) -> Vec<u8> {
    let message = json!({"method": method, "params": Value::Object(object(params))});
    message.to_string().into_bytes()
}

/// What a gateway is sent for a child, whose name is `device`.
#[must_use]
pub fn gateway_request(device: &str, number: u32, method: &str, params: &[u8]) -> Vec<u8> {
    let mut params = object(params);
    params.remove("device_id");
    let data = json!({"id": number, "method": method, "params": params});
    let message = json!({"device": device, "data": data});
    message.to_string().into_bytes()
}

/// Parameters are checked where commands are made.
fn object(params: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(params).unwrap_or_default()
}

/// What a gateway answers for a child.
#[derive(Debug, Deserialize)]
pub struct GatewayResponse {
    id: u32,
    #[serde(default)]
    data: Value,
}

impl GatewayResponse {
    /// # Errors
    /// It is none.
    pub fn read(payload: &[u8]) -> Result<Self, FormatError> {
        Ok(serde_json::from_slice(payload)?)
    }

    #[must_use]
    pub fn number(&self) -> String {
        self.id.to_string()
    }

    /// As [`result_body`].
    ///
    /// # Errors
    /// No result can hold it.
    pub fn result_body(self, request_id: &str) -> Result<Vec<u8>, FormatError> {
        formats::result_body(request_id, 0, "", self.data)
    }
}

/// What a device may do in one go, which clients of ThingsBoard ask for when they connect.
#[derive(Debug, Clone, Copy)]
pub struct ServiceLimits {
    pub payload_bytes_max: u32,
    pub inflight_messages_max: usize,
}

/// The answer to a device that asks. Of the methods that a rule of ThingsBoard might answer, none is served.
///
/// # Errors
/// It is no request.
pub fn answer_to_device(payload: &[u8], limits: ServiceLimits) -> Result<Value, FormatError> {
    #[derive(Deserialize)]
    struct Request {
        method: String,
    }
    let Request { method } = serde_json::from_slice(payload)?;
    Ok(match method.as_str() {
        "getSessionLimits" => json!({
            "maxPayloadSize": limits.payload_bytes_max,
            "maxInflightMessages": limits.inflight_messages_max,
            "rateLimits": {},
        }),
        _ => json!({"error": "no method of this name is served here"}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::metadata_to_json;
    use crate::frame::{Incoming, decode, kind};

    fn data_of(body: &[u8]) -> Value {
        let Incoming::Result(result) = decode(kind::RESULT, body).unwrap() else {
            panic!()
        };
        let mut json = Vec::new();
        metadata_to_json(result.data.unwrap(), &mut json).unwrap();
        assert_eq!((result.request_id, result.status), ("r", 0));
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn a_response_of_any_kind_is_a_result() {
        for (payload, data) in [
            (r#"{"ok": true}"#, json!({"ok": true})),
            ("7", json!({"value": 7})),
            ("done", json!({"value": "done"})),
        ] {
            assert_eq!(
                data_of(&result_body("r", payload.as_bytes()).unwrap()),
                data
            );
        }
        assert!(result_body("r", b"\xff").is_err());
    }

    #[test]
    fn a_gateway_is_asked_for_a_child_and_answers_for_it() {
        let asked = gateway_request("A", 7, "open", br#"{"device_id": "x", "seconds": 3}"#);
        let asked: Value = serde_json::from_slice(&asked).unwrap();
        let data = json!({"id": 7, "method": "open", "params": {"seconds": 3}});
        assert_eq!(asked, json!({"device": "A", "data": data}));
        let answer = br#"{"device": "A", "id": 7, "data": {"success": true}}"#;
        let response = GatewayResponse::read(answer).unwrap();
        assert_eq!(response.number(), "7");
        assert_eq!(
            data_of(&response.result_body("r").unwrap()),
            json!({"success": true})
        );
    }

    #[test]
    fn a_device_that_asks_is_answered_or_refused() {
        let limits = ServiceLimits {
            payload_bytes_max: 9,
            inflight_messages_max: 3,
        };
        let answer = |payload: &str| answer_to_device(payload.as_bytes(), limits);
        let told = answer(r#"{"method": "getSessionLimits", "params": {}}"#).unwrap();
        assert_eq!(told["maxPayloadSize"], 9);
        let refused = answer(r#"{"method": "getCurrentTime"}"#).unwrap();
        assert!(refused["error"].is_string());
        assert!(answer("{}").is_err());
    }
}
