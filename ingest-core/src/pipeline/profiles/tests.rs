use serde_json::json;

use super::*;

fn profile(format: Value) -> DeviceProfile {
    let points = json!([
        {"key": "power", "name": "Active power", "unit": "W", "type": "number", "min": -30000, "max": 30000.5,
         "counter": {"kind": "none"}},
        {"key": "energy", "name": "energy", "unit": "kWh", "type": "number", "min": 0, "max": null,
         "counter": {"kind": "modulus", "modulus": 1_000_000}},
        {"key": "relay", "name": "relay", "unit": null, "type": "boolean", "min": null, "max": null,
         "counter": {"kind": "none"}, "of a later version": 1},
    ]);
    DeviceProfile::of(&ProfileRecord {
        id: Uuid::nil(),
        version: 3,
        expected_interval_s: Some(60),
        points,
        format,
        organization_id: Uuid::nil(),
    })
}

#[test]
fn points_are_found_by_their_keys() {
    let profile = profile(json!({"kind": "hdp"}));
    assert_eq!(profile.format, Format::Hdp);
    let energy = profile.point("energy").unwrap();
    assert_eq!(energy.unit.as_deref(), Some("kWh"));
    assert_eq!(
        energy.counter,
        Counter::Modulus {
            modulus: 1_000_000.0
        }
    );
    let power = profile.point("power").unwrap();
    let is_plausible = [-30_000.0, 30_000.5, 30_001.0, f64::NAN].map(|v| power.is_plausible(v));
    assert_eq!(is_plausible, [true, true, false, false]);
    assert!(profile.point("heat").is_none());
}

#[test]
fn a_mapping_of_json_is_read_with_its_points() {
    let profile = profile(json!({
        "kind": "json", "items": "$.params", "time": {"path": "$.ts", "form": "rfc3339"},
        "mappings": [{"path": "$['em:0'].act", "point": "energy", "scale": 0.001, "offset": 0, "unit": "kWh"}],
    }));
    let Format::Json(json) = profile.format else {
        panic!("{:?}", profile.format)
    };
    assert_eq!(json.items.as_deref(), Some("$.params"));
    assert_eq!(json.time.unwrap().form, TimeForm::Rfc3339);
    let [mapping] = &json.mappings[..] else {
        panic!()
    };
    assert_eq!(&*mapping.point.key, "energy");
    assert_eq!(mapping.place.path, "$['em:0'].act");
    assert_eq!(mapping.place.scaling.scale, 0.001);
}

#[test]
fn a_register_map_is_read_with_its_points() {
    let profile = profile(json!({
        "kind": "modbus", "poll_interval_ms": 500,
        "registers": [
            {"point": "power", "function": 4, "address": 40, "type": "i32", "byte_order": "big", "word_order": "little",
             "scale": 0.1, "offset": 0, "unit": "W", "deadband": 5, "writable": false},
            {"point": "relay", "function": 1, "address": 0, "type": "bool", "byte_order": "big", "word_order": "big",
             "scale": 1, "offset": 0, "unit": null, "deadband": 0, "writable": true},
        ],
    }));
    let Format::Modbus(modbus) = profile.format else {
        panic!("{:?}", profile.format)
    };
    assert_eq!(modbus.poll_interval_ms, 500);
    let limits = (modbus.request_registers_max, modbus.request_gap_max);
    assert_eq!(limits, (125, 16));
    let power = &modbus.registers[0].place;
    assert_eq!(
        (power.function, power.address, power.kind, power.word_order),
        (
            ModbusFunction::InputRegisters,
            40,
            RegisterKind::I32,
            Order::Little
        )
    );
    assert_eq!((power.scaling.scale, power.deadband), (0.1, 5.0));
    assert!(modbus.registers[1].place.is_writable);
}

#[test]
fn what_a_later_version_has_added_is_unknown_and_no_error() {
    let mapping = json!({"path": "$", "point": "heat", "scale": 1, "offset": 0, "unit": null});
    for (format, why) in [
        (json!({"kind": "knx"}), "knx"),
        (
            json!({"kind": "json", "items": null, "time": null, "mappings": [mapping]}),
            "heat",
        ),
    ] {
        match profile(format).format {
            Format::Unknown { reason } => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_profile_of_an_older_snapshot_is_read() {
    let (points, format) = (json!([]), json!({"kind": "hdp"}));
    let old = rmp_serde::to_vec(&(Uuid::from_u128(1), 2_i64, None::<i32>, points, format));
    let read: ProfileRecord = rmp_serde::from_slice(&old.unwrap()).unwrap();
    assert_eq!((read.version, read.organization_id), (2, Uuid::nil()));
}
