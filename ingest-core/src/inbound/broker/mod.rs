//! A client of a broker that a site keeps (Mosquitto, EMQX): what is published there is taken as if its devices had said it here.
//!
//! ```text
//! patterns  which topics are asked for, and which level of them names a device
//! link      one connection: publications in, acknowledgements out when they are durable
//! ```
//!
//! The broker is a device of the registry, a gateway, and what publishes through it are its children, by serial number or name.
//!
//! **Invariants.**
//! - A publication of QoS 1 is acknowledged when it is durable, and never on another connection than that on which it came. What
//!   was not acknowledged comes again; it was then stored twice, where it was durable before. So a connection that we end
//!   acknowledges first.
//! - Nodes share what comes: each subscribes for the same group, and has a session of its own.
//! - Who is no child of this gateway is nobody; what is said of him is a dead letter.
//! - The broker is told how much is taken at a time, and how large (ADR 31): what is larger it does not send, so none comes again
//!   for ever.

mod link;
mod patterns;

use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::v5::ConnectProperties;
use rumqttc::{TlsConfiguration, Transport};
use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

pub use link::LinkError;
pub use patterns::{Pattern, PatternError};

use crate::config::Secret;
use crate::node::Node;
use crate::pipeline::circuit::Circuit;
use crate::tls::{ClientTls, TlsError};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The session ends when the broker ends it.
const NEVER: u32 = u32::MAX;

/// Where the broker is and what is asked of it.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    pub host: String,
    pub port: u16,
    pub tls: Option<Arc<ClientConfig>>,
    pub username: String,
    pub password: Option<Secret>,
    /// The gateway.
    pub device_id: Uuid,
    /// Who has the same group shares what comes.
    pub group: String,
    pub patterns: Vec<Pattern>,
}

/// Why the settings of the broker are none.
#[derive(Debug, thiserror::Error)]
pub enum BrokerSettingsError {
    #[error("broker_url must be mqtt://user:password@host:port, or mqtts:// for TLS")]
    Url,
    #[error("broker_device_id and broker_topics go with broker_url")]
    Incomplete,
    #[error("broker_group must have 1 to 64 letters, digits, - and _")]
    Group,
    #[error("broker_topics: {0}")]
    Pattern(#[from] PatternError),
    #[error("broker_authority_path and broker_client_certificate_path go with mqtts://")]
    NoTls,
    #[error("TLS to the broker: {0}")]
    Tls(#[from] TlsError),
}

impl BrokerSettings {
    /// # Errors
    /// [`BrokerSettingsError`].
    pub fn new(
        url: &Secret,
        tls: &ClientTls,
        device_id: Option<Uuid>,
        group: &str,
        topics: &[String],
    ) -> Result<Self, BrokerSettingsError> {
        let uri: hyper::Uri = (url.reveal().parse()).map_err(|_| BrokerSettingsError::Url)?;
        let (tls, usual_port) = match uri.scheme_str() {
            Some("mqtt") if *tls != ClientTls::default() => return Err(BrokerSettingsError::NoTls),
            Some("mqtt") => (None, 1883),
            Some("mqtts") => (Some(Arc::new(tls.config()?)), 8883),
            _ => return Err(BrokerSettingsError::Url),
        };
        let authority = uri.authority().ok_or(BrokerSettingsError::Url)?;
        let (user, _) = authority.as_str().rsplit_once('@').unwrap_or_default();
        let (username, password) = match user.split_once(':') {
            Some((username, password)) => (username, Some(Secret::new(decoded(password)))),
            None => (user, None),
        };
        let is_group = (1..=64).contains(&group.len())
            && group
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_group {
            return Err(BrokerSettingsError::Group);
        }
        let patterns: Vec<_> = topics
            .iter()
            .map(|topic| Pattern::new(topic))
            .collect::<Result<_, _>>()?;
        if patterns.is_empty() {
            return Err(BrokerSettingsError::Incomplete);
        }
        Ok(Self {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(usual_port),
            tls,
            username: decoded(username),
            password,
            device_id: device_id.ok_or(BrokerSettingsError::Incomplete)?,
            group: group.to_owned(),
            patterns,
        })
    }

    fn options(&self, node: &Node) -> MqttOptions {
        let client_id = format!("{}-{}", self.group, node.name);
        let mut options = MqttOptions::new(client_id, &self.host, self.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(false)
            .set_manual_acks(true)
            // Nothing is published; the client would otherwise hold a place for each packet identifier.
            .set_outgoing_inflight_upper_limit(1)
            .set_connect_properties(ConnectProperties {
                session_expiry_interval: Some(NEVER),
                receive_maximum: u16::try_from(node.config.inflight_frames_max).ok(),
                max_packet_size: Some(node.config.frame_bytes_max),
                ..ConnectProperties::new()
            });
        if !self.username.is_empty() {
            let password = self.password.as_ref().map_or("", Secret::reveal);
            options.set_credentials(&self.username, password);
        }
        if let Some(tls) = &self.tls {
            let tls = TlsConfiguration::Rustls(Arc::clone(tls));
            options.set_transport(Transport::tls_with_config(tls));
        }
        options
    }
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

/// Takes what the broker has, until `stop`; one that is away is waited for.
pub async fn run(node: Arc<Node>, settings: BrokerSettings, stop: CancellationToken) {
    let mut delays = Circuit::new(Arc::default());
    while let Err(ended) = link::serve(&node, &settings, &mut delays, &stop).await {
        warn!(error = %ended, "nothing is heard from the broker; trying again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = delays.open() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<BrokerSettings, BrokerSettingsError> {
        let topics = ["site/{device}/telemetry".to_owned()];
        BrokerSettings::new(
            &Secret::new(url.to_owned()),
            &ClientTls::default(),
            Some(Uuid::nil()),
            "hse",
            &topics,
        )
    }

    #[test]
    fn an_address_says_who_we_are_and_whether_it_is_secret() {
        let plain = settings("mqtt://us:p%40ss@broker").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("broker", 1883));
        assert_eq!(plain.username, "us");
        assert_eq!(plain.password.as_ref().map(Secret::reveal), Some("p@ss"));
        assert!(!format!("{plain:?}").contains("p@ss"));
        let tls = settings("mqtts://broker:9").unwrap();
        assert!(plain.tls.is_none() && tls.tls.is_some());
        assert_eq!((tls.port, tls.username.as_str()), (9, ""));
        for wrong in ["http://broker", "broker:1883", "mqtt://", "mqtt:broker"] {
            assert!(settings(wrong).is_err(), "{wrong}");
        }
    }
}
