//! Commands to firmware that hears them in words of its own: Tasmota, Shelly and Zigbee2MQTT.
//!
//! What a Shelly answers, and Zigbee2MQTT for itself, has the number of the command. A Tasmota, and a child of Zigbee2MQTT, say what
//! they are now: the first of that which fits a command is taken for its answer, while it is waited for.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::topics::{Channel, Topic};
use crate::config::COMMANDS_PER_DEVICE_MAX;
use crate::inbound::formats::tasmota::TasmotaTopic;
use crate::inbound::formats::thingsboard::ChildOf;
use crate::inbound::formats::zigbee2mqtt::ZigbeeTopic;
use crate::inbound::formats::{shelly, tasmota, zigbee2mqtt};
use crate::inbound::numbered::Numbered;
use crate::pipeline::commands::Command;

/// What is heard through a filter; none where it is none of such firmware.
#[must_use]
pub fn channel(filter: &str) -> Option<Channel> {
    if filter == zigbee2mqtt::ALL {
        return Some(Channel::Zigbee);
    }
    let tasmota = tasmota::commands_of(filter);
    let tasmota = tasmota.map(|base| Channel::Tasmota { base: base.into() });
    tasmota.or_else(|| {
        let prefix = shelly::prefix_of(filter)?.into();
        Some(Channel::Shelly { prefix })
    })
}

/// A command as it is published.
pub struct Said {
    pub topic: String,
    pub payload: String,
    /// What answers it, where that has no number.
    pub wanted: Option<Wanted>,
}

/// What the answer to a command is known by.
#[derive(Debug)]
pub enum Wanted {
    Tasmota {
        command: String,
    },
    Zigbee {
        child: Uuid,
        command: String,
        params: Map<String, Value>,
    },
}

/// Says a command in the words of the firmware that subscribed to `channel`; none for firmware that hears ours. `child` is whom it is
/// for, where that is a child of the gateway.
#[must_use]
pub fn said(
    channel: &Channel,
    command: &Command,
    mut params: Map<String, Value>,
    number: u32,
    child: Option<(Uuid, &str)>,
) -> Option<Said> {
    let kind = &command.command_type;
    Some(match (channel, child) {
        (Channel::Tasmota { base }, _) => Said {
            topic: format!("{base}{kind}"),
            payload: tasmota::command_payload(&params),
            wanted: Some(Wanted::Tasmota {
                command: kind.clone(),
            }),
        },
        (Channel::Shelly { prefix }, _) => {
            let (topic, payload) = shelly::request(prefix, number, kind, params);
            Said {
                topic,
                payload,
                wanted: None,
            }
        }
        (Channel::Zigbee, Some((child, name))) => {
            params.remove("device_id");
            Said {
                topic: zigbee2mqtt::command_topic(name, kind),
                payload: Value::Object(params.clone()).to_string(),
                wanted: Some(Wanted::Zigbee {
                    child,
                    command: kind.clone(),
                    params,
                }),
            }
        }
        (Channel::Zigbee, None) => {
            params.insert("transaction".to_owned(), number.into());
            Said {
                topic: zigbee2mqtt::request_topic(kind),
                payload: Value::Object(params).to_string(),
                wanted: None,
            }
        }
        _ => return None,
    })
}

/// What a command came to.
#[derive(Debug)]
pub struct Outcome {
    pub request_id: Arc<str>,
    pub status: u64,
    pub message: String,
    pub data: Value,
}

/// What Zigbee2MQTT answers for itself.
#[must_use]
pub fn answer_of_bridge(numbered: &Numbered, about: &str, payload: &[u8]) -> Option<Outcome> {
    let response = zigbee2mqtt::Response::read(about, payload)?;
    Some(Outcome {
        request_id: numbered.request_of(&response.transaction.to_string())?,
        status: u64::from(!response.is_ok()),
        message: response.error,
        data: response.data,
    })
}

/// The last commands whose answers have no numbers.
#[derive(Debug, Default)]
pub struct Unanswered(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    request_id: Arc<str>,
    until: Instant,
    wanted: Wanted,
}

impl Unanswered {
    pub fn note(&mut self, command: &Command, wanted: Wanted) {
        if self.0.len() >= COMMANDS_PER_DEVICE_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Waiting {
            request_id: Arc::clone(&command.request_id),
            until: command.deadline,
            wanted,
        });
    }

    pub fn forget(&mut self, request_id: &str) {
        self.0.retain(|waiting| *waiting.request_id != *request_id);
    }

    /// The command that a publication answers, the oldest one, and how.
    pub fn answered_by(
        &mut self,
        topic: &Topic<'_>,
        payload: &[u8],
        child_of: ChildOf<'_>,
    ) -> Option<Outcome> {
        let now = Instant::now();
        self.0.retain(|waiting| waiting.until > now);
        // Most of what is published answers nothing, and is not read twice.
        self.0.front()?;
        let (Topic::Tasmota(TasmotaTopic::Answer { .. })
        | Topic::Zigbee(ZigbeeTopic::Values { .. })) = topic
        else {
            return None;
        };
        let Ok(Value::Object(said)) = serde_json::from_slice(payload) else {
            return None;
        };
        let is_done = |waiting: &Waiting| match (&waiting.wanted, topic) {
            (Wanted::Tasmota { command }, Topic::Tasmota(TasmotaTopic::Answer { level })) => {
                tasmota::is_done(level, &said, command)
            }
            (
                Wanted::Zigbee {
                    child,
                    command,
                    params,
                },
                Topic::Zigbee(ZigbeeTopic::Values { name }),
            ) => (child_of(name) == Some(*child) && zigbee2mqtt::is_done(command, params, &said))
                .then_some(true),
            _ => None,
        };
        let (request_id, is_done) = self.0.iter().find_map(|waiting| {
            let is_done = is_done(waiting)?;
            Some((Arc::clone(&waiting.request_id), is_done))
        })?;
        Some(Outcome {
            request_id,
            status: u64::from(!is_done),
            message: match is_done {
                true => String::new(),
                false => "the device does not know the command, or not these parameters".to_owned(),
            },
            data: Value::Object(said),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn command(kind: &str) -> Command {
        Command {
            device_id: Uuid::nil(),
            request_id: kind.into(),
            command_type: kind.to_owned(),
            params: Vec::new(),
            deadline_us: 0,
            deadline: Instant::now() + Duration::from_secs(60),
        }
    }

    fn say(channel: &Channel, kind: &str, params: Value, child: Option<(Uuid, &str)>) -> Said {
        let Value::Object(params) = params else {
            panic!()
        };
        said(channel, &command(kind), params, 7, child).unwrap()
    }

    #[test]
    fn each_firmware_is_told_in_its_words() {
        let lamp = Some((Uuid::from_u128(5), "hall/lamp"));
        for (filter, kind, params, child, topic, payload) in [
            (
                "cmnd/a/#",
                "POWER",
                json!({"value": "ON"}),
                None,
                "cmnd/a/POWER",
                "ON",
            ),
            (
                "a/b/rpc",
                "Switch.Set",
                json!({"id": 0, "on": true}),
                None,
                "a/b/rpc",
                r#"{"id":7,"method":"Switch.Set","params":{"id":0,"on":true},"src":"hse"}"#,
            ),
            (
                "zigbee2mqtt/#",
                "set",
                json!({"device_id": "x", "state": "ON"}),
                lamp,
                "zigbee2mqtt/hall/lamp/set",
                r#"{"state":"ON"}"#,
            ),
            (
                "zigbee2mqtt/#",
                "permit_join",
                json!({"time": 9}),
                None,
                "zigbee2mqtt/bridge/request/permit_join",
                r#"{"time":9,"transaction":7}"#,
            ),
        ] {
            let said = say(&channel(filter).unwrap(), kind, params, child);
            assert_eq!(
                (said.topic.as_str(), said.payload.as_str()),
                (topic, payload)
            );
        }
        for filter in ["rpc", "/rpc", "+/rpc", "cmnd/#", "zigbee2mqtt/+/set", "#"] {
            assert_eq!(channel(filter), None, "{filter}");
        }
    }

    #[test]
    fn what_a_device_says_of_itself_answers_the_oldest_command_that_it_fits() {
        let mut unanswered = Unanswered::default();
        for kind in ["POWER", "Dimmer", "POWER2"] {
            let wanted = Wanted::Tasmota {
                command: kind.to_owned(),
            };
            unanswered.note(&command(kind), wanted);
        }
        let nobody = |_: &str| None;
        let mut answer = |topic: &str, payload: &str| {
            let found = unanswered.answered_by(&Topic::of(topic), payload.as_bytes(), &nobody)?;
            unanswered.forget(&found.request_id);
            Some((found.request_id.to_string(), found.status))
        };
        let on = r#"{"POWER":"ON"}"#;
        assert_eq!(answer("tele/a/STATE", on), None);
        assert_eq!(answer("stat/a/POWER", "ON"), None);
        assert_eq!(answer("stat/a/RESULT", on), Some(("POWER".to_owned(), 0)));
        assert_eq!(answer("stat/a/RESULT", on), Some(("POWER2".to_owned(), 0)));
        let unknown = r#"{"Command":"Unknown"}"#;
        assert_eq!(
            answer("stat/a/RESULT", unknown),
            Some(("Dimmer".to_owned(), 1))
        );
        assert_eq!(answer("stat/a/RESULT", on), None);
    }

    #[test]
    fn a_child_s_state_answers_what_it_was_to_become_and_nothing_after_the_deadline() {
        let (lamp, door) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let child_of = |name: &str| Some(if name == "lamp" { lamp } else { door });
        let mut unanswered = Unanswered::default();
        let said = say(
            &Channel::Zigbee,
            "set",
            json!({"state": "ON"}),
            Some((lamp, "lamp")),
        );
        unanswered.note(&command("set"), said.wanted.unwrap());
        let mut answer = |topic: &str, payload: &str| {
            let found = unanswered.answered_by(&Topic::of(topic), payload.as_bytes(), &child_of);
            found.map(|found| found.status)
        };
        assert_eq!(answer("zigbee2mqtt/lamp", r#"{"state":"OFF"}"#), None);
        assert_eq!(answer("zigbee2mqtt/door", r#"{"state":"ON"}"#), None);
        assert_eq!(answer("zigbee2mqtt/lamp", r#"{"state":"ON"}"#), Some(0));
        unanswered.0[0].until = Instant::now();
        let topic = Topic::of("zigbee2mqtt/lamp");
        assert!(
            unanswered
                .answered_by(&topic, br#"{"state":"ON"}"#, &child_of)
                .is_none()
        );
    }
}
