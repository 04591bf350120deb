//! Objects within objects as events: `{"ENERGY": {"Power": 12}}` is `ENERGY.Power` with the value 12.

use serde_json::Value;
use uuid::Uuid;

use super::{About, Decoded, FormatError};

/// Words of switches, which are values: 1 and 0, and the word beside it.
const WORDS: [(&str, f64); 8] = [
    ("ON", 1.0),
    ("OFF", 0.0),
    ("on", 1.0),
    ("off", 0.0),
    ("online", 1.0),
    ("offline", 0.0),
    ("Online", 1.0),
    ("Offline", 0.0),
];
/// Far beyond any type that is taken: it is written anew for all that is within it.
const PATH_BYTES_MAX: usize = 1024;
/// The type of events that say whether a device is there.
pub const ONLINE: &str = "online";

/// What all events of a reading have in common, and the unit of each key.
pub struct Reading<'a> {
    pub time_us: Option<i64>,
    pub device_id: Option<Uuid>,
    pub unit_of: &'a dyn Fn(&str) -> Option<&'a str>,
    /// Keys that say nothing that was measured, of the outermost object.
    pub left_out: &'a [&'a str],
}

impl Reading<'_> {
    /// One of the receipt's time, without units.
    #[must_use]
    pub fn plain(device_id: Option<Uuid>) -> Self {
        Self {
            time_us: None,
            device_id,
            unit_of: &|_| None,
            left_out: &[],
        }
    }

    /// Each value of an object under its path; a list counts from 0.
    ///
    /// # Errors
    /// [`FormatError::Value`]; [`FormatError::Shape`] where a path is longer than anybody's.
    pub fn push(
        &self,
        decoded: &mut Decoded,
        prefix: &str,
        value: &Value,
    ) -> Result<(), FormatError> {
        if prefix.len() > PATH_BYTES_MAX {
            return Err(FormatError::Shape("names too long to be told apart by"));
        }
        if decoded.is_full() {
            return Ok(());
        }
        let path = |name: &str| match prefix {
            "" => name.to_owned(),
            _ => format!("{prefix}.{name}"),
        };
        match value {
            Value::Object(object) => object
                .iter()
                .filter(|(name, _)| !prefix.is_empty() || !self.left_out.contains(&name.as_str()))
                .try_for_each(|(name, inner)| self.push(decoded, &path(name), inner)),
            Value::Array(list) => (list.iter().enumerate())
                .try_for_each(|(at, inner)| self.push(decoded, &path(&at.to_string()), inner)),
            Value::String(text) => self.push_text(decoded, prefix, text),
            // Nothing was measured.
            Value::Null => Ok(()),
            Value::Bool(_) | Value::Number(_) => decoded.push_value(self.about(prefix), value),
        }
    }

    /// A text, which may be the word of a switch.
    ///
    /// # Errors
    /// [`FormatError::Value`].
    pub fn push_text(
        &self,
        decoded: &mut Decoded,
        key: &str,
        text: &str,
    ) -> Result<(), FormatError> {
        let word = WORDS.iter().find(|(word, _)| *word == text);
        let Some((word, number)) = word else {
            return decoded.push_value(self.about(key), &Value::from(text));
        };
        let metadata = rmp_serde::to_vec(&serde_json::json!({"value": word}))?;
        let about = self.about(key);
        decoded.push(&crate::event::Event {
            time_us: about.time_us,
            event_type: about.key,
            value: Some(*number),
            unit: None,
            metadata: Some(&metadata),
            device_id: about.device_id,
        });
        Ok(())
    }

    fn about<'k>(&'k self, key: &'k str) -> About<'k> {
        About {
            key,
            time_us: self.time_us,
            unit: (self.unit_of)(key),
            device_id: self.device_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inbound::formats::told;

    #[test]
    fn a_path_that_would_be_written_anew_for_a_whole_list_is_refused() {
        let value = json!({"k".repeat(PATH_BYTES_MAX + 1): [null, 1]});
        let mut decoded = Decoded::default();
        let refused = Reading::plain(None).push(&mut decoded, "", &value);
        assert!(matches!(refused, Err(FormatError::Shape(_))));
        assert!(decoded.events.is_empty());
    }

    #[test]
    fn each_value_has_its_path() {
        let value = json!({"A": {"b": 1, "c": [2, {"d": "x"}]}, "P": "ON", "n": null, "t": true, "left": 1});
        let unit_of = |key: &str| (key == "A.b").then_some("W");
        let reading = Reading {
            time_us: Some(5),
            unit_of: &unit_of,
            left_out: &["left"],
            ..Reading::plain(None)
        };
        let mut decoded = Decoded::default();
        reading.push(&mut decoded, "", &value).unwrap();
        let expected = [
            json!({"type": "A.b", "value": 1.0, "unit": "W", "time_us": 5}),
            json!({"type": "A.c.0", "value": 2.0, "time_us": 5}),
            json!({"type": "A.c.1.d", "metadata": {"value": "x"}, "time_us": 5}),
            json!({"type": "P", "value": 1.0, "metadata": {"value": "ON"}, "time_us": 5}),
            json!({"type": "t", "value": 1.0, "time_us": 5}),
        ];
        assert_eq!(told(&decoded), expected);
    }
}
