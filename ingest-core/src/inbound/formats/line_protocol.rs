//! Influx line protocol, so that Telegraf and other clients of InfluxDB can write to us.
//! Format: <https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>.
//!
//! ```text
//! measurement,tag=text field=1.5,other=2i,flag=t,words="text" 1767225600000000000
//! ```
//!
//! Each field is an event of the type `measurement.field`, of `measurement` alone for a field that is called `value`; its tags are
//! its metadata. The tag `hse_device` says of which child of the device it is, by serial number or name. A line that cannot be read
//! becomes a dead letter, and the others do not.

use std::borrow::Cow;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{About, Decoded, FormatError, Told};
use crate::event::Event;

const CHILD_TAG: &str = "hse_device";
const ONLY_FIELD: &str = "value";

/// What a time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
}

impl Precision {
    /// As the parameter `precision` says it; none where it is no such word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Some(match word {
            "" | "ns" | "n" => Self::Nanoseconds,
            "us" | "u" | "µ" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            _ => return None,
        })
    }

    fn microseconds(self, time: i64) -> Option<i64> {
        match self {
            Self::Nanoseconds => Some(time.div_euclid(1000)),
            Self::Microseconds => Some(time),
            Self::Milliseconds => time.checked_mul(1000),
            Self::Seconds => time.checked_mul(1_000_000),
        }
    }
}

/// Reads lines.
///
/// # Errors
/// It is not text, has no lines, or more values than a message may have.
pub fn lines(
    told: Told<'_>,
    precision: Precision,
    child_of: &dyn Fn(&str) -> Option<Uuid>,
) -> Result<Decoded, FormatError> {
    let text = std::str::from_utf8(told.payload)?;
    let mut decoded = Decoded::default();
    for line in split_lines(text) {
        if decoded.is_full() {
            break;
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let before = (decoded.num_events, decoded.events.len());
        if let Err(reason) = push_line(&mut decoded, line, precision, child_of) {
            (decoded.num_events, _) = before;
            decoded.events.truncate(before.1);
            let told = Told {
                payload: line.as_bytes(),
                ..told
            };
            decoded.push_unreadable(told, reason);
        }
    }
    decoded.checked()
}

/// Where a line is read.
#[derive(Clone, Copy)]
enum Part {
    Before,
    Comment,
    Series,
    Fields,
}

/// A text may hold newlines. As in [`cut_fields`], a quote opens one where the value of a field begins.
fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped, mut before) = (false, false, '\n');
    let mut part = Part::Before;
    text.split(move |character| {
        let is_end = character == '\n' && !is_quoted;
        part = match (part, character) {
            _ if is_end => Part::Before,
            (Part::Before, '#') => Part::Comment,
            (Part::Before, other) if !other.is_whitespace() => Part::Series,
            (Part::Series, ' ') if !is_escaped => Part::Fields,
            (part, _) => part,
        };
        let is_quote = character == '"' && !is_escaped && matches!(part, Part::Fields);
        is_quoted ^= is_quote && (is_quoted || before == '=');
        is_escaped = character == '\\' && !is_escaped;
        before = character;
        is_end
    })
}

fn push_line(
    decoded: &mut Decoded,
    line: &str,
    precision: Precision,
    child_of: &dyn Fn(&str) -> Option<Uuid>,
) -> Result<(), &'static str> {
    let (series, rest) = cut(line, b" ").ok_or("no fields")?;
    let rest = rest.trim_start();
    let (fields, time) = cut_fields(rest, b" ").unwrap_or((rest, ""));
    let time_us = time_of(time.trim(), precision)?;
    let (measurement, tags) = cut(series, b",").unwrap_or((series, ""));
    let measurement = unescaped(measurement);
    if measurement.is_empty() {
        return Err("no measurement");
    }
    let (tags, child) = tags_of(tags, child_of)?;
    let mut rest = fields;
    while !rest.is_empty() && !decoded.is_full() {
        let (field, behind) = cut_fields(rest, b",").unwrap_or((rest, ""));
        rest = behind;
        let (key, value) = cut(field, b"=").ok_or("a field without a value")?;
        let (key, value) = (unescaped(key), field_value(value)?);
        let kind: Cow<'_, str> = match &*key {
            "" => return Err("a field without a name"),
            ONLY_FIELD => Cow::Borrowed(&measurement),
            key => Cow::Owned(format!("{measurement}.{key}")),
        };
        let about = About {
            key: &kind,
            time_us,
            unit: None,
            device_id: child,
        };
        push_field(decoded, about, &tags, value)?;
    }
    Ok(())
}

fn push_field(
    decoded: &mut Decoded,
    about: About<'_>,
    tags: &Map<String, Value>,
    value: Value,
) -> Result<(), &'static str> {
    let number = match &value {
        Value::Bool(is_true) => Some(f64::from(u8::from(*is_true))),
        other => other.as_f64(),
    };
    let mut metadata = tags.clone();
    if number.is_none() {
        metadata.insert("value".to_owned(), value);
    }
    let metadata = rmp_serde::to_vec(&metadata).map_err(|_| "tags that no event can hold")?;
    decoded.push(&Event {
        time_us: about.time_us,
        event_type: about.key,
        value: number,
        unit: None,
        metadata: (!tags.is_empty() || number.is_none()).then_some(&metadata),
        device_id: about.device_id,
    });
    Ok(())
}

fn time_of(text: &str, precision: Precision) -> Result<Option<i64>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    let time = text.parse().map_err(|_| "a time that is no whole number")?;
    let time_us = precision.microseconds(time);
    time_us.map(Some).ok_or("a time beyond all times")
}

fn tags_of(
    mut rest: &str,
    child_of: &dyn Fn(&str) -> Option<Uuid>,
) -> Result<(Map<String, Value>, Option<Uuid>), &'static str> {
    let (mut tags, mut child) = (Map::new(), None);
    while !rest.is_empty() {
        let (tag, behind) = cut(rest, b",").unwrap_or((rest, ""));
        rest = behind;
        let (key, value) = cut(tag, b"=").ok_or("a tag without a value")?;
        let (key, value) = (unescaped(key), unescaped(value));
        if key == CHILD_TAG {
            let known = child_of(&value);
            child = Some(known.ok_or("hse_device names no enabled child of this device")?);
        } else {
            tags.insert(key.into_owned(), Value::from(value));
        }
    }
    Ok((tags, child))
}

fn field_value(text: &str) -> Result<Value, &'static str> {
    if let Some(quoted) = text.strip_prefix('"') {
        let inner = quoted.strip_suffix('"').ok_or("a text without its end")?;
        return Ok(Value::from(
            inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        ));
    }
    match text {
        "t" | "T" | "true" | "True" | "TRUE" => return Ok(Value::from(true)),
        "f" | "F" | "false" | "False" | "FALSE" => return Ok(Value::from(false)),
        _ => {}
    }
    let no_number = "a value that is no number, boolean or quoted text";
    if let Some(signed) = text.strip_suffix('i') {
        return signed
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| no_number);
    }
    if let Some(unsigned) = text.strip_suffix('u') {
        return unsigned
            .parse::<u64>()
            .map(Value::from)
            .map_err(|_| no_number);
    }
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.map(Value::from).ok_or(no_number)
}

/// Cuts at the first of `ends` that is not escaped.
fn cut<'t>(text: &'t str, ends: &[u8]) -> Option<(&'t str, &'t str)> {
    let mut is_escaped = false;
    let at = text.bytes().position(|byte| {
        let is_end = !is_escaped && ends.contains(&byte);
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Cuts at the first of `ends` that is neither escaped nor within quotes.
fn cut_fields<'t>(text: &'t str, ends: &[u8]) -> Option<(&'t str, &'t str)> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        if is_escaped {
            is_escaped = false;
            continue;
        }
        match byte {
            b'\\' => is_escaped = true,
            // A quote opens a text where a value begins, and elsewhere it is a letter.
            b'"' if is_quoted || begins_value(text, at) => is_quoted = !is_quoted,
            end if !is_quoted && ends.contains(&end) => {
                return Some((text.get(..at)?, text.get(at + 1..)?));
            }
            _ => {}
        }
    }
    None
}

fn begins_value(text: &str, at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|at| text.as_bytes().get(at));
    before == Some(&b'=')
}

/// A backslash before a comma, an equals sign, a space or another backslash.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let is_escape =
            character == '\\' && matches!(characters.peek(), Some(',' | '=' | ' ' | '\\'));
        out.extend(match is_escape {
            true => characters.next(),
            false => Some(character),
        });
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::inbound::formats::told;

    fn read(payload: &str, precision: Precision) -> Vec<Value> {
        let child_of = |name: &str| (name == "A").then(|| Uuid::from_u128(1));
        let payload = payload.as_bytes();
        let topic = "/api/v2/write";
        told(&lines(Told { topic, payload }, precision, &child_of).unwrap())
    }

    #[test]
    fn what_stands_once_and_is_that_of_many_fields_is_bounded() {
        let fields = vec!["f=1"; 1000].join(",");
        for line in [
            format!("m,t={} {fields}", "x".repeat(1 << 20)),
            format!("{} {fields}", "m".repeat(1 << 20)),
        ] {
            let told = Told {
                topic: "/api/v2/write",
                payload: line.as_bytes(),
            };
            let read = lines(told, Precision::Seconds, &|_| None);
            assert!(matches!(read, Err(FormatError::Size)));
        }
    }

    #[test]
    fn each_field_is_an_event_with_the_tags_as_its_metadata() {
        let line =
            r#"cpu,host=a,cpu=cpu0 usage=1.5,cores=4i,big=9u,on=t,name="x y" 1767225600000000999"#;
        let tags = json!({"cpu": "cpu0", "host": "a"});
        let time_us = 1_767_225_600_000_000_i64;
        let event = |kind: &str, value: f64| json!({"type": kind, "value": value, "time_us": time_us, "metadata": tags});
        let text = json!({
            "type": "cpu.name", "time_us": time_us, "metadata": {"cpu": "cpu0", "host": "a", "value": "x y"},
        });
        let expected = [
            event("cpu.usage", 1.5),
            event("cpu.cores", 4.0),
            event("cpu.big", 9.0),
            event("cpu.on", 1.0),
            text,
        ];
        assert_eq!(read(line, Precision::Nanoseconds), expected);
    }

    #[test]
    fn a_time_is_of_the_precision_that_was_said_or_that_of_the_receipt() {
        for (word, time) in [
            ("ns", "1767225600000000000"),
            ("us", "1767225600000000"),
            ("ms", "1767225600000"),
            ("s", "1767225600"),
        ] {
            let said = read(&format!("t value=1 {time}"), Precision::of(word).unwrap());
            let expected = json!({"type": "t", "value": 1.0, "time_us": 1_767_225_600_000_000_i64});
            assert_eq!(said, [expected], "{word}");
        }
        assert_eq!(
            read("t value=1", Precision::Seconds),
            [json!({"type": "t", "value": 1.0})]
        );
        let before_1970 = read("t value=1 -1", Precision::Nanoseconds);
        assert_eq!(before_1970[0]["time_us"], -1);
        assert_eq!(Precision::of("h"), None);
    }

    #[test]
    fn what_is_escaped_and_quoted_is_read_as_it_was_meant() {
        let line = "a\\ b\\,c,k\\=1=v\\ w f\\ 1=\"say \\\"hi\\\", \\\\ = b\",g=1";
        let expected = [
            json!({"type": "a b,c.f 1", "metadata": {"k=1": "v w", "value": "say \"hi\", \\ = b"}}),
            json!({"type": "a b,c.g", "value": 1.0, "metadata": {"k=1": "v w"}}),
        ];
        assert_eq!(read(line, Precision::Nanoseconds), expected);
        let over_lines = "a f=\"one\ntwo\",g=1\nb value=2";
        let kinds: Vec<_> = read(over_lines, Precision::Nanoseconds)
            .into_iter()
            .map(|event| event["type"].clone())
            .collect();
        assert_eq!(kinds, ["a.f", "a.g", "b"]);
    }

    #[test]
    fn a_quote_in_a_series_or_a_comment_is_a_letter() {
        let lines = "m,t=\"a v=1\nm,t=b\\ \" v=2\n# x=\"\nm=\"n v=3\nm,t=\"a\\,b\" v=\"one\ntwo\"";
        let expected = [
            json!({"type": "m.v", "value": 1.0, "metadata": {"t": "\"a"}}),
            json!({"type": "m.v", "value": 2.0, "metadata": {"t": "b \""}}),
            json!({"type": "m=\"n.v", "value": 3.0}),
            json!({"type": "m.v", "metadata": {"t": "\"a,b\"", "value": "one\ntwo"}}),
        ];
        assert_eq!(read(lines, Precision::Nanoseconds), expected);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_kept_and_the_others_are_events() {
        let text = "# a comment\n\nok value=1\nno fields\nt value=x\nt,tag value=1\n,a=b value=1\nt value=1 soon\nt =1\nt value=\"x\n";
        let said = read(text, Precision::Nanoseconds);
        assert_eq!(said[0], json!({"type": "ok", "value": 1.0}));
        assert_eq!(said.len(), 8);
        assert!(
            said[1..]
                .iter()
                .all(|letter| letter["unreadable"].is_string())
        );
        let nan = read("t value=NaN\nt value=inf", Precision::Nanoseconds);
        assert!(nan.iter().all(|letter| letter["unreadable"].is_string()));
    }

    #[test]
    fn a_tag_says_of_which_child_it_is() {
        let said = read(
            "t,hse_device=A,x=y value=1\nt,hse_device=B value=1",
            Precision::Nanoseconds,
        );
        let expected = json!({"type": "t", "value": 1.0, "device_id": "1", "metadata": {"x": "y"}});
        assert_eq!(said[0], expected);
        assert!(
            said[1]["unreadable"]
                .as_str()
                .unwrap()
                .contains("hse_device")
        );
    }

    #[test]
    fn a_write_without_lines_is_none() {
        let told = |payload| Told { topic: "", payload };
        for payload in [&b""[..], b"# nothing\n", b"\xff"] {
            assert!(lines(told(payload), Precision::Nanoseconds, &|_| None).is_err());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_events_or_dead_letters(text in "[a,= \"\\\\\n1i.t]{0,60}") {
            let told = Told { topic: "", payload: text.as_bytes() };
            let num_lines = text.lines().filter(|line| !line.trim().is_empty()).count();
            match lines(told, Precision::Nanoseconds, &|_| None) {
                Ok(decoded) => prop_assert!(decoded.num_events > 0),
                Err(_) => prop_assert_eq!(num_lines, 0),
            }
        }
    }
}
