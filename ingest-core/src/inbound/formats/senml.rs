//! SenML in JSON (RFC 8428): a list of records, the first of which say what the others have in common.
//!
//! ```text
//! [{"bn": "urn:dev:1:", "bt": 1767225600, "bu": "Cel", "n": "temp", "v": 21.5}, {"n": "hum", "u": "%RH", "v": 40, "t": -60}]
//! ```
//!
//! Base fields hold until another record says others (section 4.6). A time below 2^28 is relative to now (section 4.5.3), and 0 is
//! now; the time of receipt is left for the core to say. Where a record has a sum and no value, the sum is its value; where it has
//! both, the sum is `sum` in the metadata. What is data (`vd`) stays text.

use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

use super::time::seconds_us;
use super::{Decoded, FormatError, Told};
use crate::event::Event;
use crate::pipeline::profiles::{DeviceProfile, IMPLAUSIBLE, QUALITY};

/// Below it a time counts from now: 2^28 seconds.
const RELATIVE_TIME_MAX: f64 = 268_435_456.0;
/// The version of RFC 8428. A pack of a newer one must not be processed (section 4.4).
const VERSION_MAX: u64 = 10;

#[derive(Debug, Default, Deserialize)]
struct Record {
    bn: Option<String>,
    bt: Option<f64>,
    bu: Option<String>,
    bv: Option<f64>,
    bs: Option<f64>,
    bver: Option<u64>,
    n: Option<String>,
    u: Option<String>,
    v: Option<f64>,
    vs: Option<String>,
    vb: Option<bool>,
    vd: Option<String>,
    s: Option<f64>,
    t: Option<f64>,
    ut: Option<f64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// What holds until another record says otherwise.
#[derive(Debug, Default)]
struct Base {
    name: String,
    time: f64,
    unit: Option<String>,
    value: f64,
    sum: Option<f64>,
}

/// Reads a pack; `now_us` is what relative times count from. Names are the keys of the profile's points, where it has such.
///
/// # Errors
/// Why it is none. A record that is none becomes a dead letter, and the others do not.
pub fn pack(
    told: Told<'_>,
    now_us: i64,
    profile: Option<&DeviceProfile>,
) -> Result<Decoded, FormatError> {
    let Value::Array(records) = serde_json::from_slice(told.payload)? else {
        return Err(FormatError::Shape("a SenML pack is a list of records"));
    };
    let (mut decoded, mut base) = (Decoded::default(), Base::default());
    for value in records {
        if decoded.is_full() {
            break;
        }
        let text = value.to_string();
        let record = match serde_json::from_value::<Record>(value) {
            Ok(record) => record,
            Err(error) => {
                let payload = text.as_bytes();
                decoded.push_unreadable(Told { payload, ..told }, &error.to_string());
                continue;
            }
        };
        if record.bver.is_some_and(|version| version > VERSION_MAX) {
            return Err(FormatError::Shape("a SenML version that is not known here"));
        }
        base.take(&record);
        if let Err(why) = push_record(&mut decoded, (&base, &record), now_us, profile) {
            let payload = text.as_bytes();
            decoded.push_unreadable(Told { payload, ..told }, why);
        }
    }
    decoded.checked()
}

impl Base {
    fn take(&mut self, record: &Record) {
        if let Some(name) = &record.bn {
            self.name.clone_from(name);
        }
        self.time = record.bt.unwrap_or(self.time);
        if record.bu.is_some() {
            self.unit.clone_from(&record.bu);
        }
        self.value = record.bv.unwrap_or(self.value);
        self.sum = record.bs.or(self.sum);
    }
}

fn push_record(
    decoded: &mut Decoded,
    (base, record): (&Base, &Record),
    now_us: i64,
    profile: Option<&DeviceProfile>,
) -> Result<(), &'static str> {
    // Section 4.3: a field that must be understood and is not.
    if record.others.keys().any(|name| name.ends_with('_')) {
        return Err("a field that must be understood and is not");
    }
    let sum = match (record.s, base.sum) {
        (None, None) => None,
        (own, common) => Some(own.unwrap_or(0.0) + common.unwrap_or(0.0)),
    };
    let has_other = record.vs.is_some() || record.vb.is_some() || record.vd.is_some();
    let own = record.v.map(|v| v + base.value);
    let own = own.or_else(|| record.vb.map(|is_true| f64::from(u8::from(is_true))));
    if own.is_none() && !has_other && sum.is_none() {
        // A record of base fields alone.
        let is_base = record.n.is_none() && record.u.is_none() && record.t.is_none();
        return if is_base {
            Ok(())
        } else {
            Err("a record without a value")
        };
    }
    let name = format!("{}{}", base.name, record.n.as_deref().unwrap_or_default());
    if !is_name(&name) {
        return Err("a name that is none of RFC 8428");
    }
    let mut metadata = Map::new();
    if let Some(text) = record.vs.as_ref().or(record.vd.as_ref()) {
        metadata.insert("value".to_owned(), json!(text));
    }
    let (value, beside) = match own {
        None if !has_other => (sum, None),
        own => (own, sum),
    };
    if let Some(sum) = beside {
        let sum = Number::from_f64(sum).ok_or("a sum beyond all numbers")?;
        metadata.insert("sum".to_owned(), Value::Number(sum));
    }
    if let Some(update) = record.ut.and_then(Number::from_f64) {
        metadata.insert("update_s".to_owned(), Value::Number(update));
    }
    let point = profile.and_then(|profile| profile.point(&name));
    if let (Some(point), Some(value)) = (point, value)
        && !point.is_plausible(value)
    {
        metadata.insert(QUALITY.to_owned(), json!(IMPLAUSIBLE));
    }
    let unit = record.u.as_deref().or(base.unit.as_deref());
    let encoded = rmp_serde::to_vec(&metadata).map_err(|_| "what no event can hold")?;
    decoded.push(&Event {
        time_us: time_us(base.time + record.t.unwrap_or(0.0), now_us)?,
        event_type: &name,
        value,
        unit: unit.or_else(|| point.and_then(|point| point.unit.as_deref())),
        metadata: (!metadata.is_empty()).then_some(&encoded),
        device_id: None,
    });
    Ok(())
}

/// None for now, which the core knows best.
fn time_us(seconds: f64, now_us: i64) -> Result<Option<i64>, &'static str> {
    if seconds == 0.0 {
        return Ok(None);
    }
    let microseconds = seconds_us(seconds).ok_or("a time beyond all times")?;
    let is_relative = seconds < RELATIVE_TIME_MAX;
    let from = if is_relative { now_us } else { 0 };
    Ok(Some(from.saturating_add(microseconds)))
}

/// Section 4.5.1.
fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric();
    name.starts_with(is_letter)
        && name
            .chars()
            .all(|c| is_letter(c) || matches!(c, '-' | ':' | '.' | '/' | '_'))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::inbound::formats::told;
    use crate::pipeline::profiles::ProfileRecord;

    const NOW_US: i64 = 1_767_225_600_000_000;

    fn read(payload: &str) -> Vec<Value> {
        let payload = payload.as_bytes();
        told(
            &pack(
                Told {
                    topic: "t",
                    payload,
                },
                NOW_US,
                None,
            )
            .unwrap(),
        )
    }

    #[test]
    fn the_examples_of_the_rfc_are_read_as_it_resolves_them() {
        // 5.1.2, 5.1.3 and 5.1.4 of RFC 8428.
        let several = r#"[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},
            {"n":"current","u":"A","v":1.2}]"#;
        let name = |name: &str| format!("urn:dev:ow:10e2073a01080063:{name}");
        let expected = [
            json!({"type": name("voltage"), "value": 120.1, "unit": "V"}),
            json!({"type": name("current"), "value": 1.2, "unit": "A"}),
        ];
        assert_eq!(read(several), expected);
        let timed = r#"[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,
            "n":"voltage","u":"V","v":120.1}, {"n":"current","t":-5,"v":1.2}, {"n":"current","t":-4,"v":1.3}]"#;
        let said: Vec<_> = read(timed)
            .iter()
            .map(|event| (event["time_us"].clone(), event["unit"].clone()))
            .collect();
        let expected = [
            (json!(1_276_020_076_001_000_i64), json!("V")),
            (json!(1_276_020_071_001_000_i64), json!("A")),
            (json!(1_276_020_072_001_000_i64), json!("A")),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_time_counts_from_1970_from_now_or_is_that_of_the_receipt() {
        for (time, expected) in [
            ("0", Value::Null),
            ("-60", json!(NOW_US - 60_000_000)),
            ("60", json!(NOW_US + 60_000_000)),
            ("268435456", json!(268_435_456_000_000_i64)),
        ] {
            let said = read(&format!(r#"[{{"n":"a","v":1,"t":{time}}}]"#));
            assert_eq!(said[0]["time_us"], expected, "{time}");
        }
    }

    #[test]
    fn base_values_and_sums_are_added() {
        let said = read(
            r#"[{"bn":"m:","bv":20,"bs":100,"n":"a","v":1.5},{"n":"b","s":5},{"n":"c","vb":true}]"#,
        );
        let expected = [
            json!({"type": "m:a", "value": 21.5, "metadata": {"sum": 100.0}}),
            json!({"type": "m:b", "value": 105.0}),
            json!({"type": "m:c", "value": 1.0, "metadata": {"sum": 100.0}}),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn texts_and_data_are_beside_the_value() {
        let said = read(r#"[{"n":"a","vs":"on"},{"n":"b","vd":"aGk"},{"n":"c","v":1,"ut":60}]"#);
        let expected = [
            json!({"type": "a", "metadata": {"value": "on"}}),
            json!({"type": "b", "metadata": {"value": "aGk"}}),
            json!({"type": "c", "value": 1.0, "metadata": {"update_s": 60.0}}),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_record_that_is_none_is_kept_and_the_others_are_events() {
        let said = read(
            r#"[{"bn":"m:","bt":5},{"n":"a"},{"n":"a b","v":1},{"n":"c","v":"x"},{"n":"d","v":1,"x_":2},7,{"n":"e","v":1}]"#,
        );
        let unreadable = said.iter().filter(|one| one["unreadable"].is_string());
        assert_eq!((said.len(), unreadable.count()), (6, 5));
        assert_eq!(said[5]["type"], "m:e");
    }

    #[test]
    fn a_point_of_the_profile_lends_its_unit_and_its_limits() {
        let profile = DeviceProfile::of(&ProfileRecord {
            id: Uuid::nil(),
            version: 1,
            expected_interval_s: None,
            points: json!([{
                "key": "m:a", "name": "a", "unit": "W", "type": "number", "min": 0, "max": null, "counter": {"kind": "none"},
            }]),
            format: json!({"kind": "senml"}),
            organization_id: Uuid::nil(),
        });
        let payload = br#"[{"bn":"m:","n":"a","v":-1},{"n":"a","u":"kW","v":1}]"#;
        let decoded = pack(
            Told {
                topic: "t",
                payload,
            },
            NOW_US,
            Some(&profile),
        )
        .unwrap();
        let expected = [
            json!({"type": "m:a", "value": -1.0, "unit": "W", "metadata": {"quality": "implausible"}}),
            json!({"type": "m:a", "value": 1.0, "unit": "kW"}),
        ];
        assert_eq!(told(&decoded), expected);
    }

    #[test]
    fn what_is_no_pack_is_refused() {
        for payload in [
            "{}",
            "[]",
            "[{\"bn\":\"a\"}]",
            "1",
            "[{\"bver\":11,\"n\":\"a\",\"v\":1}]",
        ] {
            let payload = payload.as_bytes();
            assert!(
                pack(
                    Told {
                        topic: "t",
                        payload
                    },
                    NOW_US,
                    None,
                )
                .is_err()
            );
        }
    }
}
