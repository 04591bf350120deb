use super::*;
use crate::frame::json::{LINE_BYTES_MAX, line_to_frame, split_line};

fn transcoded(line: &str) -> Result<(u8, Value), FrameError> {
    let mut body = b"left over from the line before".to_vec();
    let kind = line_to_frame(line.as_bytes(), &mut body)?;
    let mut rest = &body[..];
    let value = rmpv::decode::read_value(&mut rest).unwrap();
    assert!(rest.is_empty());
    Ok((kind, value))
}

#[track_caller]
fn assert_line_malformed(line: &[u8]) {
    let mut body = Vec::new();
    let error = line_to_frame(line, &mut body)
        .and_then(|kind| decode_whole(kind, &body).map(|_| ()))
        .expect_err("taken");
    assert_eq!(error.code(), ErrorCode::Malformed, "{error}");
}

#[test]
fn the_lines_of_the_protocol_are_their_frames() {
    let line = format!(
        r#"{{"hello": {{"version": 1, "device_id": "{DEVICE}", "token": "secret", "epoch": 7}}}}"#
    );
    assert_eq!(transcoded(&line), Ok((kind::HELLO, Value::Array(hello()))));
    let line = r#"{"events": {"first_seq": 2, "events": [{"type": "", "value": 3}]}}"#;
    let event = Value::Array(vec![Value::Nil, "".into(), 3.into()]);
    assert_eq!(
        transcoded(line),
        Ok((
            kind::EVENTS,
            Value::Array(vec![2.into(), Value::Array(vec![event])])
        ))
    );
    assert_eq!(
        transcoded(r#"{"ping": {"nonce": 1}}"#),
        Ok((kind::PING, Value::Array(vec![1.into()])))
    );
    assert_eq!(
        transcoded(r#"{"bye": {}}"#),
        Ok((kind::BYE, Value::Array(vec![])))
    );
    let result = Value::Array(vec!["r".into(), 0.into(), Value::Nil, Value::Map(vec![])]);
    assert_eq!(
        transcoded(r#"{"result": {"request_id": "r", "status": 0, "data": {}}}"#),
        Ok((kind::RESULT, result))
    );
}

#[test]
fn the_order_of_keys_is_free_and_unknown_ones_are_skipped() {
    let line = format!(
        r#"{{"events": {{"x": [{{}}], "events": [{{"device_id": "{DEVICE}", "new": {{"a": [1]}}, "metadata": {{"k": [1, {{}}]}}, "type": "t", "time_us": -5}}], "first_seq": 1}}}} "#
    );
    let metadata = Value::Map(vec![(
        "k".into(),
        Value::Array(vec![1.into(), Value::Map(vec![])]),
    )]);
    let event = Value::Array(vec![
        (-5).into(),
        "t".into(),
        Value::Nil,
        Value::Nil,
        metadata,
        bin(DEVICE),
    ]);
    assert_eq!(
        transcoded(&line),
        Ok((
            kind::EVENTS,
            Value::Array(vec![1.into(), Value::Array(vec![event])])
        ))
    );
}

#[test]
fn long_lists_and_maps_get_their_heads() {
    for length in [0, 1, 15, 16, 17, 255, 256, 3000] {
        let pairs: Vec<_> = (0..length)
            .map(|index| format!(r#""{index}": [{index}]"#))
            .collect();
        let line = format!(
            r#"{{"result": {{"request_id": "r", "status": 0, "data": {{{}}}}}}}"#,
            pairs.join(",")
        );
        let data = (0..length)
            .map(|index| (index.to_string().into(), Value::Array(vec![index.into()])))
            .collect();
        let result = Value::Array(vec!["r".into(), 0.into(), Value::Nil, Value::Map(data)]);
        assert_eq!(transcoded(&line), Ok((kind::RESULT, result)));
    }
}

#[test]
fn a_line_that_is_not_one_object_of_one_known_key_is_malformed() {
    let bad = [
        "",
        " ",
        "{",
        "{}",
        "[]",
        "1",
        "\"bye\"",
        "null",
        "{\"bye\"}",
        "{\"bye\": {}",
        "{\"bye\": {}} x",
        "{\"bye\": {}} {}",
        r#"{"bye": {}, "ping": {"nonce": 1}}"#,
        r#"{"bye": {}, "x": 1}"#,
        r#"{"x": {}}"#,
        r#"{"BYE": {}}"#,
        r#"{"welcome": {}}"#,
        r#"{"bye": []}"#,
        r#"{"bye": null}"#,
        r#"{"ping": [1]}"#,
        r#"{"ping": {"nonce": 1, "nonce": 2}}"#,
        r#"{"ping": {"nonce": 1,}}"#,
        r#"{'bye': {}}"#,
        r#"{"ping": {"nonce": 01}}"#,
    ];
    for line in bad {
        assert_line_malformed(line.as_bytes());
    }
    assert_line_malformed(b"{\"ping\": {\"nonce\": 1, \"x\": \"\xff\"}}");
    assert_line_malformed(b"\xff");
}

#[test]
fn wrong_types_in_a_line_are_malformed_as_in_a_frame() {
    let bad = [
        r#"{"ping": {}}"#,
        r#"{"ping": {"nonce": -1}}"#,
        r#"{"ping": {"nonce": 1.0}}"#,
        r#"{"ping": {"nonce": "1"}}"#,
        r#"{"ping": {"nonce": 1e400}}"#,
        r#"{"hello": {"version": 1, "device_id": "8c1f", "token": "t", "epoch": 7}}"#,
        r#"{"hello": {"version": 1, "device_id": 5, "token": "t", "epoch": 7}}"#,
        r#"{"events": {"first_seq": 1, "events": []}}"#,
        r#"{"events": {"first_seq": 0, "events": [{"type": "t"}]}}"#,
        r#"{"events": {"first_seq": 1, "events": {"type": "t"}}}"#,
        r#"{"events": {"first_seq": 1, "events": [[null, "t"]]}}"#,
        r#"{"events": {"first_seq": 1, "events": [{}]}}"#,
        r#"{"events": {"first_seq": 1, "events": [{"type": 5}]}}"#,
        r#"{"events": {"first_seq": 1, "events": [{"type": "t", "value": "5"}]}}"#,
        r#"{"events": {"first_seq": 1, "events": [{"type": "t", "value": 1e400}]}}"#,
        r#"{"events": {"first_seq": 1, "events": [{"type": "t", "value": NaN}]}}"#,
        r#"{"events": {"first_seq": 1, "events": [{"type": "t", "metadata": [1]}]}}"#,
        r#"{"events": {"first_seq": 1, "events": [{"type": "t", "time_us": 1e30}]}}"#,
        r#"{"events": {"first_seq": 1, "events": [{"type": "t", "device_id": "8c1f"}]}}"#,
        r#"{"events": {"first_seq": 1, "events": [{"type": "\ud800"}]}}"#,
    ];
    for line in bad {
        assert_line_malformed(line.as_bytes());
    }
}

#[test]
fn content_in_a_line_is_judged_as_in_a_frame() {
    for (event, code) in [
        (r#"{"type": ""}"#, RejectCode::BadType),
        (r#"{"type": "t\u0000"}"#, RejectCode::BadType),
        (
            r#"{"type": "t", "metadata": {"k": "\u0000"}}"#,
            RejectCode::BadMetadata,
        ),
        (
            r#"{"type": "t", "time_us": 18446744073709551615}"#,
            RejectCode::BadTime,
        ),
    ] {
        let line = format!(r#"{{"events": {{"first_seq": 1, "events": [{event}]}}}}"#);
        let mut body = Vec::new();
        let kind = line_to_frame(line.as_bytes(), &mut body).unwrap();
        assert_eq!(kind, kind::EVENTS);
        assert_eq!(
            check_event(&only_event(&body), NOW_US, 0),
            Err(code),
            "{event}"
        );
    }
}

#[test]
fn nesting_counts_as_in_a_frame() {
    let line = |depth| {
        let metadata = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(
            r#"{{"events": {{"first_seq": 1, "events": [{{"type": "t", "metadata": {{"k": {metadata}}}}}]}}}}"#
        )
    };
    assert!(transcoded(&line(12)).is_ok());
    assert_line_malformed(line(13).as_bytes());
    assert_line_malformed(line(10_000).as_bytes());
}

#[test]
fn floats_in_a_line_are_read_exactly() {
    let line = r#"{"events": {"first_seq": 1, "events": [{"type": "t", "value": -1.8038824734742478e248}]}}"#;
    let mut body = Vec::new();
    line_to_frame(line.as_bytes(), &mut body).unwrap();
    assert_eq!(only_event(&body).value, Some(-1.803_882_473_474_247_8e248));
}

#[test]
fn lines_are_cut_at_newlines() {
    let buf = b"{\"bye\": {}}\r\nrest";
    let line = split_line(buf, LINE_BYTES_MAX).unwrap().unwrap();
    assert_eq!((line.line, line.line_bytes), (&buf[..12], 13));
    assert_eq!(line_to_frame(line.line, &mut Vec::new()), Ok(kind::BYE));
    assert_eq!(split_line(b"rest", LINE_BYTES_MAX), Ok(None));
}

#[test]
fn a_line_of_64_kib_is_taken_and_a_longer_one_is_too_large() {
    let mut buf = vec![b' '; 65_536];
    assert_eq!(split_line(&buf, LINE_BYTES_MAX), Ok(None));
    buf.push(b'\n');
    assert_eq!(
        split_line(&buf, LINE_BYTES_MAX)
            .unwrap()
            .unwrap()
            .line_bytes,
        65_537
    );
    buf[65_536] = b' ';
    assert_eq!(
        split_line(&buf, LINE_BYTES_MAX).unwrap_err().code(),
        ErrorCode::TooLarge
    );
    buf.push(b'\n');
    assert_eq!(
        split_line(&buf, LINE_BYTES_MAX).unwrap_err().code(),
        ErrorCode::TooLarge
    );
}

fn json_line(outgoing: &Outgoing<'_>) -> String {
    let mut out = Vec::new();
    outgoing.encode_json_line(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_core_says_its_lines_as_the_protocol_shows_them() {
    let welcome = Outgoing::Welcome {
        version: 1,
        last_seq: 0,
        max_inflight_frames: 64,
        frame_bytes_max: 1 << 20,
        server_time_us: NOW_US,
        keepalive_s: 60,
    };
    let expected = concat!(
        r#"{"welcome":{"version":1,"last_seq":0,"max_inflight_frames":64,"frame_bytes_max":1048576,"#,
        r#""server_time_us":1767225600000000,"keepalive_s":60}}"#,
        "\n"
    );
    assert_eq!(json_line(&welcome), expected);
    assert_eq!(
        json_line(&Outgoing::Ack {
            seq: 1,
            rejected: &[]
        }),
        "{\"ack\":{\"seq\":1}}\n"
    );
    assert_eq!(
        json_line(&Outgoing::Ack {
            seq: 2,
            rejected: &[(2, RejectCode::BadType)]
        }),
        "{\"ack\":{\"seq\":2,\"rejected\":[[2,\"bad_type\"]]}}\n"
    );
    assert_eq!(
        json_line(&Outgoing::Busy {
            seq: 2,
            retry_after_ms: 5,
            reason: "a\nb"
        }),
        "{\"busy\":{\"seq\":2,\"retry_after_ms\":5,\"reason\":\"a\\nb\"}}\n"
    );
    assert_eq!(
        json_line(&Outgoing::Pong { nonce: 1 }),
        "{\"pong\":{\"nonce\":1}}\n"
    );
    assert_eq!(
        json_line(&Outgoing::Error {
            code: ErrorCode::AuthFailed,
            message: "no"
        }),
        "{\"error\":{\"code\":\"auth_failed\",\"message\":\"no\"}}\n"
    );
    let params = encoded(&Value::Map(vec![("level".into(), 3.into())]));
    assert_eq!(
        json_line(&Outgoing::Command {
            request_id: "r",
            command_type: "dim",
            params: &params,
            deadline_us: 9
        }),
        "{\"command\":{\"request_id\":\"r\",\"command_type\":\"dim\",\"params\":{\"level\":3},\"deadline_us\":9}}\n"
    );
}

#[test]
fn a_command_that_json_cannot_hold_is_not_said_in_part() {
    let params = encoded(&Value::Map(vec![("key".into(), Value::Binary(vec![1]))]));
    let command = Outgoing::Command {
        request_id: "r",
        command_type: "dim",
        params: &params,
        deadline_us: 9,
    };
    let mut out = b"before".to_vec();
    assert_eq!(
        command.encode_json_line(&mut out),
        Err(RejectCode::BadMetadata)
    );
    assert_eq!(out, b"before");
}
