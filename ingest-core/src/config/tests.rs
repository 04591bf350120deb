use super::*;

#[test]
fn all_mistakes_are_reported_together() {
    let error = Config::from_json(
        r#"{"data_dir": "d", "database_url": "u", "lanes": 0, "keepalive_s": 0, "tls_key_path": "k",
            "grpc_client_ca_path": "c", "service_token": "short"}"#,
    );
    assert_eq!(error.unwrap_err().mistakes.len(), 5);
}

#[test]
fn the_control_plane_is_told_an_address_that_it_can_reach() {
    let address = |more: &str| {
        let json = format!(r#"{{"data_dir": "d", "database_url": "u"{more}}}"#);
        Config::from_json(&json).unwrap().grpc_address_at(7)
    };
    assert_eq!(address(""), "127.0.0.1:7");
    assert_eq!(address(r#", "grpc_bind_host": "::1""#), "[::1]:7");
    assert_eq!(address(r#", "grpc_bind_host": "ingest-1""#), "ingest-1:7");
    let everywhere = r#", "grpc_bind_host": "0.0.0.0""#;
    assert_eq!(address(everywhere), format!("{}:7", host_name()));
    let said = r#", "grpc_bind_host": "0.0.0.0", "grpc_address": "a.example:9""#;
    assert_eq!(address(said), "a.example:9");
}

#[test]
fn a_token_is_not_shown() {
    let token = "0123456789abcdef0123456789abcdef";
    let json = format!(r#"{{"data_dir": "d", "database_url": "u", "service_token": "{token}"}}"#);
    let config = Config::from_json(&json).unwrap();
    assert!(config.has_callers());
    assert!(!format!("{config:?}").contains(token));
}

#[test]
fn an_unknown_setting_is_refused() {
    let error =
        Config::from_json(r#"{"data_dir": "d", "database_url": "u", "lane": 2}"#).unwrap_err();
    assert!(
        error.to_string().contains("unknown field `lane`"),
        "{error}"
    );
}
