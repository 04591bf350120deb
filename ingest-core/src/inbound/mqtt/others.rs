//! What devices publish in forms that are not ours: by the profile of the device where that says how, else by the topic.

use uuid::Uuid;

use super::topics::Topic;
use crate::inbound::formats::thingsboard::telemetry;
use crate::inbound::formats::{
    Decoded, FormatError, Told, json_mapping, senml, shelly, tasmota, zigbee2mqtt,
};
use crate::node::Node;
use crate::pipeline::clock::now_us;
use crate::pipeline::profiles::Format;

/// As [`read_other`]; where neither the profile nor the topic says how, it is an object of values.
///
/// # Errors
/// As there, but never [`FormatError::Topic`].
pub fn read_any(
    node: &Node,
    device_id: Uuid,
    topic: &Topic<'_>,
    told: Told<'_>,
) -> Result<Decoded, FormatError> {
    match read_other(node, device_id, topic, told) {
        Err(FormatError::Topic) => telemetry(told.payload),
        read => read,
    }
}

/// Reads a message of `device_id`.
///
/// # Errors
/// Why it is not what it should be; [`FormatError::Topic`] where nothing says how it is to be read.
pub(super) fn read_other(
    node: &Node,
    device_id: Uuid,
    topic: &Topic<'_>,
    told: Told<'_>,
) -> Result<Decoded, FormatError> {
    let child_of = |name: &str| node.registry.child_of(device_id, name);
    let profile = node.registry.profile_of(device_id);
    let profile = profile.as_deref();
    let by_profile = match profile.map(|profile| &profile.format) {
        Some(Format::Json(json)) if topic.is_mapped() => Some(json_mapping::mapped(told, json)),
        Some(Format::Senml) if *topic == Topic::Unknown => {
            Some(senml::pack(told, now_us(), profile))
        }
        Some(Format::Unknown { reason }) if *topic == Topic::Unknown => {
            Some(Err(FormatError::Profile(reason.clone())))
        }
        _ => None,
    };
    if let Some(Ok(decoded)) = by_profile {
        return Ok(decoded);
    }
    match topic {
        Topic::Senml => senml::pack(told, now_us(), profile),
        Topic::Tasmota(topic) => tasmota::tasmota(*topic, told.payload),
        Topic::Shelly(topic) => shelly::shelly(*topic, told.payload),
        Topic::Zigbee(topic) => zigbee2mqtt::zigbee2mqtt(*topic, told, &child_of),
        _ => by_profile.unwrap_or(Err(FormatError::Topic)),
    }
}
