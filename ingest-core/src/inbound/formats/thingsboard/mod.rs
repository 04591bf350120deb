//! The device API of ThingsBoard, so that firmware that was written for it works by changing the host: payloads, whichever way they
//! come. Formats: <https://thingsboard.io/docs/reference/mqtt-api/>, <https://thingsboard.io/docs/reference/http-api/>,
//! <https://thingsboard.io/docs/reference/gateway-mqtt-api/>.
//!
//! ```text
//! telemetry   {"k": v} | [{"k": v}] | {"ts": ms, "values": {"k": v}} | a list of those; {"child": [...]} of a gateway
//! attributes  {"k": v} reported; requests of what is reported ("client") and desired ("shared"); changes of what is desired
//! rpc         {"method", "params"} with a number: a command and its result, or a device that asks
//! entrance    claiming and provisioning
//! ```
//!
//! A key is an event's type; what comes without `ts` has the time of its receipt. An answer of RPC has no status, so a command that
//! was answered has succeeded. A gateway names its children, by serial number or by name, and brings none into being.

mod attributes;
mod entrance;
mod rpc;
mod telemetry;

pub use attributes::{
    AttributeRequest, GatewayAttributeRequest, ToldAttributes, attributes, gateway_attributes,
    gateway_update,
};
pub use entrance::{ClaimOffer, ProvisionRequest, gateway_claims, provision_failure, provisioned};
pub use rpc::{
    GatewayResponse, ServiceLimits, answer_to_device, gateway_request, request_message, result_body,
};
pub use telemetry::{gateway_device, gateway_telemetry, telemetry};

use uuid::Uuid;

/// Which child of the gateway that speaks a name means.
pub type ChildOf<'a> = &'a dyn Fn(&str) -> Option<Uuid>;

/// The words for a name that means none.
pub fn no_such_child(name: &str) -> String {
    let name: String = name.chars().take(100).collect();
    format!("no enabled child of this gateway has the serial number or the name {name:?}")
}
