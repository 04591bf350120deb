//! Which topics are asked for: a filter, in which one level may be `{device}`, which names the device that publishes there.

const DEVICE: &str = "{device}";

/// A filter of a broker's topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// As it is subscribed to.
    pub filter: String,
    /// Which level names the device.
    device_level: Option<usize>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no filter: + and {{device}} are levels of their own, # is the last one, and {{device}} comes once"
)]
pub struct PatternError(String);

impl Pattern {
    /// # Errors
    /// [`PatternError`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let levels: Vec<_> = text.split('/').collect();
        let last = levels.len().saturating_sub(1);
        let is_valid = levels.iter().enumerate().all(|(at, level)| match *level {
            "+" | DEVICE => true,
            "#" => at == last,
            other => !other.contains(['+', '#', '{', '}']),
        });
        let mut devices = levels.iter().enumerate();
        let mut devices = devices.by_ref().filter(|(_, level)| **level == DEVICE);
        let device_level = devices.next().map(|(at, _)| at);
        if text.is_empty() || text.starts_with('$') || !is_valid || devices.next().is_some() {
            return Err(PatternError(text.to_owned()));
        }
        Ok(Self {
            filter: text.replace(DEVICE, "+"),
            device_level,
        })
    }

    /// Whether a topic is one of these, and the device that it names, if there is a level for it.
    #[must_use]
    pub fn device_of<'t>(&self, topic: &'t str) -> Option<Option<&'t str>> {
        let mut levels = topic.split('/');
        for wanted in self.filter.split('/') {
            if wanted == "#" {
                break;
            }
            let level = levels.next()?;
            if wanted != "+" && wanted != level {
                return None;
            }
        }
        let has_more = levels.next().is_some();
        if has_more && !self.filter.ends_with('#') {
            return None;
        }
        let device = |level| topic.split('/').nth(level);
        Some(self.device_level.and_then(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_of_a_topic_names_the_device() {
        let pattern = Pattern::new("site/{device}/+/#").unwrap();
        assert_eq!(pattern.filter, "site/+/+/#");
        for (topic, device) in [
            ("site/a/b/c/d", Some(Some("a"))),
            ("site/a/b", Some(Some("a"))),
            ("site/a", None),
            ("other/a/b/c", None),
        ] {
            assert_eq!(pattern.device_of(topic), device, "{topic}");
        }
        let plain = Pattern::new("tele/plug/SENSOR").unwrap();
        assert_eq!(plain.device_of("tele/plug/SENSOR"), Some(None));
        assert_eq!(plain.device_of("tele/plug/SENSOR/x"), None);
        let all = Pattern::new("#").unwrap();
        assert_eq!(all.device_of("a/b"), Some(None));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for wrong in [
            "",
            "a+/b",
            "a/#/b",
            "{device}/{device}",
            "a/x{device}",
            "$share/g/a",
            "{other}/a",
        ] {
            assert!(Pattern::new(wrong).is_err(), "{wrong}");
        }
    }
}
