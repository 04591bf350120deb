use serde_json::json;

use std::fs;

use super::*;
use crate::pipeline::profiles::Framing;

fn device(id: u128, token: &str) -> DeviceRecord {
    DeviceRecord {
        id: Uuid::from_u128(id),
        token_hash: Some(Sha256::digest(token.as_bytes()).into()),
        is_enabled: true,
        gateway_id: None,
        epoch: 2,
        last_seq: 9,
        profile_id: None,
        modbus: None,
        name: None,
        serial_number: None,
    }
}

fn polled(id: u128, profile: u128) -> DeviceRecord {
    let address = ModbusAddress {
        host: "10.0.4.7".to_owned(),
        port: 502,
        unit_id: 1,
        framing: Framing::Tcp,
    };
    DeviceRecord {
        profile_id: Some(Uuid::from_u128(profile)),
        modbus: Some(Box::new(address)),
        ..device(id, "a")
    }
}

fn profile(id: u128, version: i64) -> ProfileRecord {
    let register = json!({
        "point": "p", "function": 3, "address": 7, "type": "u16", "byte_order": "big", "word_order": "big",
        "scale": 1, "offset": 0, "unit": null, "deadband": 0, "writable": false,
    });
    ProfileRecord {
        id: Uuid::from_u128(id),
        version,
        expected_interval_s: None,
        points: json!([{"key": "p", "name": "p", "unit": null, "type": "number", "min": null, "max": null,
            "counter": {"kind": "none"}}]),
        format: json!({"kind": "modbus", "poll_interval_ms": 1000, "registers": [register]}),
        organization_id: Uuid::from_u128(77),
    }
}

fn registry(records: Vec<DeviceRecord>) -> DeviceRegistry {
    let registry = DeviceRegistry::default();
    registry.replace_all(records);
    registry
}

#[test]
fn the_right_token_of_an_enabled_device_is_let_in() {
    let disabled = DeviceRecord {
        is_enabled: false,
        ..device(2, "b")
    };
    let registry = registry(vec![device(1, "a"), disabled]);
    assert_eq!(
        registry.authenticate(Uuid::from_u128(1), "a"),
        Ok(Watermark { epoch: 2, seq: 9 })
    );
    assert_eq!(
        registry.authenticate(Uuid::from_u128(1), "b"),
        Err(AuthenticationFailed)
    );
    assert_eq!(
        registry.authenticate(Uuid::from_u128(2), "b"),
        Err(AuthenticationFailed)
    );
    assert_eq!(
        registry.authenticate(Uuid::from_u128(3), "a"),
        Err(AuthenticationFailed)
    );
}

#[test]
fn a_token_alone_says_who_it_is_while_it_is_the_device_s() {
    let registry = registry(vec![device(1, "a"), device(2, "b")]);
    let (one, known) = (Uuid::from_u128(1), Watermark { epoch: 2, seq: 9 });
    assert_eq!(registry.authenticate_by_token("a"), Ok((one, known)));
    assert_eq!(
        registry.authenticate_by_token("c"),
        Err(AuthenticationFailed)
    );
    registry.replace(&[one], vec![device(1, "c")]);
    assert_eq!(registry.authenticate_by_token("c"), Ok((one, known)));
    assert_eq!(
        registry.authenticate_by_token("a"),
        Err(AuthenticationFailed)
    );
    let disabled = DeviceRecord {
        is_enabled: false,
        ..device(1, "c")
    };
    registry.replace_all(vec![disabled, device(3, "")]);
    assert_eq!(
        registry.authenticate_by_token("c"),
        Err(AuthenticationFailed)
    );
    assert_eq!(
        registry.authenticate_by_token("b"),
        Err(AuthenticationFailed)
    );
}

#[test]
fn a_device_without_a_token_cannot_connect() {
    let registry = registry(vec![DeviceRecord {
        token_hash: None,
        ..device(1, "a")
    }]);
    assert_eq!(
        registry.authenticate(Uuid::from_u128(1), ""),
        Err(AuthenticationFailed)
    );
}

#[test]
fn a_gateway_speaks_for_its_enabled_children_only() {
    let child = DeviceRecord {
        gateway_id: Some(Uuid::from_u128(1)),
        ..device(2, "b")
    };
    let registry = registry(vec![device(1, "a"), child, device(3, "c")]);
    let may = |child| registry.may_speak_for(Uuid::from_u128(1), Uuid::from_u128(child));
    assert_eq!(may(1), Ok(()));
    assert_eq!(may(2), Ok(()));
    assert_eq!(may(3), Err(RejectCode::ForbiddenDevice));
    assert_eq!(may(4), Err(RejectCode::UnknownDevice));
}

#[test]
fn a_gateway_calls_its_enabled_children_by_what_they_are_called_now() {
    let gateway = Uuid::from_u128(1);
    let child = |id, name: &str| DeviceRecord {
        gateway_id: Some(gateway),
        token_hash: None,
        name: Some(name.into()),
        serial_number: Some(format!("S-{id}").into()),
        ..device(id, "")
    };
    let registry = registry(vec![device(1, "a"), child(2, "lamp"), child(3, "door")]);
    let called = |name| registry.child_of(gateway, name).map(|id| id.as_u128());
    assert_eq!((called("lamp"), called("S-3")), (Some(2), Some(3)));
    let renamed = (gateway, "lantern".into());
    let disabled = DeviceRecord {
        is_enabled: false,
        ..child(3, "door")
    };
    let ids = [2, 3].map(Uuid::from_u128);
    registry.replace(&ids, vec![child(2, "lantern"), disabled]);
    assert_eq!((called("lamp"), called("lantern")), (None, Some(2)));
    assert_eq!(called("door"), None);
    assert_eq!(registry.gateway_and_name_of(ids[0]), Some(renamed));
    assert_eq!(registry.gateway_and_name_of(gateway), None);
    registry.replace_all(vec![device(1, "a")]);
    assert_eq!(called("lantern"), None);
}

#[test]
fn a_gateway_is_told_of_a_child_by_a_name_that_means_it() {
    let gateway = Uuid::from_u128(1);
    let child = |id, name: &str, serial_number: Option<&str>| DeviceRecord {
        gateway_id: Some(gateway),
        token_hash: None,
        name: Some(name.into()),
        serial_number: serial_number.map(Into::into),
        ..device(id, "")
    };
    // The last one's name is the serial number of the first.
    let children = vec![
        child(2, "meter", Some("S-2")),
        child(3, "meter", None),
        child(4, "S-2", None),
    ];
    let registry = registry(children);
    let name = |id| registry.gateway_and_name_of(Uuid::from_u128(id));
    assert_eq!(name(2), Some((gateway, "S-2".into())));
    assert_eq!((name(3), name(4)), (None, None));
}

#[test]
fn a_device_is_reached_by_itself_or_is_named_why_not() {
    let without_token = |id| DeviceRecord {
        token_hash: None,
        ..device(id, "")
    };
    let child = DeviceRecord {
        gateway_id: Some(Uuid::from_u128(1)),
        ..without_token(2)
    };
    let disabled = DeviceRecord {
        is_enabled: false,
        ..device(4, "d")
    };
    let unread = DeviceRegistry::default();
    assert_eq!(
        unread.reachability(Uuid::from_u128(9)),
        Reachability::ByItself
    );
    let registry = registry(vec![device(1, "a"), child, without_token(3), disabled]);
    let found = [1, 2, 3, 4, 5].map(|id| registry.reachability(Uuid::from_u128(id)));
    let expected = [
        Reachability::ByItself,
        Reachability::ThroughGateway,
        Reachability::WithoutToken,
        Reachability::Disabled,
        Reachability::Unknown,
    ];
    assert_eq!(found, expected);
    let spoken_for = [2, 4, 5].map(|id| registry.may_be_spoken_for(Uuid::from_u128(id)));
    let expected = [
        Ok(()),
        Err(RejectCode::ForbiddenDevice),
        Err(RejectCode::UnknownDevice),
    ];
    assert_eq!(spoken_for, expected);
}

#[test]
fn devices_that_lost_their_right_are_named() {
    let registry = registry(vec![device(1, "a"), device(2, "b"), device(3, "c")]);
    let ids = [1, 2, 3].map(Uuid::from_u128);
    let cut = registry.replace(
        &ids,
        vec![
            device(1, "new token"),
            DeviceRecord {
                last_seq: 10,
                ..device(2, "b")
            },
        ],
    );
    assert_eq!(cut, [Uuid::from_u128(1), Uuid::from_u128(3)]);
    assert_eq!(registry.len(), 2);
}

#[test]
fn a_snapshot_reads_back_and_a_damaged_one_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.snapshot");
    registry(vec![device(1, "a")]).save(&path).unwrap();
    let restored = DeviceRegistry::default();
    restored.restore(&path).unwrap();
    assert!(restored.authenticate(Uuid::from_u128(1), "a").is_ok());
    fs::write(&path, b"damaged").unwrap();
    assert!(restored.restore(&path).is_err());
}

fn polled_ids(registry: &DeviceRegistry) -> Vec<u128> {
    let mut ids: Vec<_> = (registry.polled().iter())
        .map(|device| device.device_id.as_u128())
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn polled_are_enabled_devices_with_an_address_and_a_register_map() {
    let disabled = DeviceRecord {
        is_enabled: false,
        ..polled(2, 9)
    };
    let registry = registry(vec![
        polled(1, 9),
        disabled,
        polled(3, 8),
        polled(4, 7),
        device(5, "b"),
    ]);
    assert!(polled_ids(&registry).is_empty());
    let other = ProfileRecord {
        format: json!({"kind": "hdp"}),
        ..profile(8, 1)
    };
    registry.replace_profiles(None, vec![profile(9, 1), other]);
    assert_eq!(polled_ids(&registry), [1]);
    let without_token = DeviceRecord {
        token_hash: None,
        ..polled(6, 9)
    };
    registry.replace(&[Uuid::from_u128(6)], vec![without_token]);
    let reachability = registry.reachability(Uuid::from_u128(6));
    assert_eq!(reachability, Reachability::ByItself);
    let found = registry.profile_of(Uuid::from_u128(3)).unwrap();
    assert_eq!(found.format, Format::Hdp);
    assert!(registry.profile_of(Uuid::from_u128(4)).is_none());
}

#[test]
fn who_polls_hears_of_what_changes_it_and_of_nothing_else() {
    let registry = registry(vec![polled(1, 9), device(2, "b")]);
    registry.replace_profiles(None, vec![profile(9, 1)]);
    let mut changes = registry.polling_changes();
    let ids = [1, 2].map(Uuid::from_u128);
    let mut is_told = |change: &dyn Fn()| {
        changes.mark_unchanged();
        change();
        changes.has_changed().unwrap()
    };
    let cases: [(bool, &dyn Fn()); 8] = [
        (false, &|| {
            registry.replace(&ids, vec![polled(1, 9), device(2, "c")]);
        }),
        (false, &|| {
            registry.replace_all(vec![polled(1, 9), device(2, "c")]);
        }),
        (false, &|| {
            registry.replace_profiles(None, vec![profile(9, 1)]);
        }),
        (true, &|| {
            registry.replace_profiles(Some(&[Uuid::from_u128(9)]), vec![profile(9, 2)]);
        }),
        (true, &|| {
            registry.replace(&ids, vec![polled(1, 8), device(2, "c")]);
        }),
        (true, &|| {
            registry.replace_all(vec![polled(1, 9), polled(2, 9)]);
        }),
        (true, &|| {
            registry.replace(&ids, vec![polled(1, 9)]);
        }),
        (true, &|| {
            registry.replace_profiles(Some(&[Uuid::from_u128(9)]), Vec::new());
        }),
    ];
    for (place, (expected, change)) in cases.into_iter().enumerate() {
        assert_eq!(is_told(change), expected, "case {place}");
    }
    assert!(polled_ids(&registry).is_empty());
}

#[test]
fn a_snapshot_holds_what_is_polled_and_one_of_an_older_version_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.snapshot");
    let saved = registry(vec![polled(1, 9)]);
    saved.replace_profiles(None, vec![profile(9, 1)]);
    saved.save(&path).unwrap();
    let restored = DeviceRegistry::default();
    restored.restore(&path).unwrap();
    let polled = |registry: &DeviceRegistry| {
        let polled = registry.polled();
        let [device] = &polled[..] else {
            panic!("{polled:?}")
        };
        (device.address.clone(), (*device.profile).clone())
    };
    assert_eq!(polled(&restored), polled(&saved));
    assert_eq!(saved.polled(), saved.polled());

    let hash: TokenHash = Sha256::digest("a").into();
    let older = [(Uuid::from_u128(1), Some(hash), true, None::<Uuid>, 2, 9)];
    fs::write(&path, rmp_serde::to_vec(&older).unwrap()).unwrap();
    let restored = DeviceRegistry::default();
    restored.restore(&path).unwrap();
    let known = restored.authenticate(Uuid::from_u128(1), "a");
    assert_eq!(known, Ok(Watermark { epoch: 2, seq: 9 }));
}
