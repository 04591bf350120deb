//! Hears of what devices are desired to be, from `NOTIFY hse_device_attributes`, whose payload is `<device id> <version>`.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::connection::{Database, classify, within_deadline};
use crate::pipeline::attributes::DesiredChanges;
use crate::pipeline::circuit::Circuit;
use crate::pipeline::ports::SinkError;
use crate::pipeline::registry::DeviceRegistry;

/// Tells the connections of devices that something else is desired of them.
pub struct DesiredFollower {
    pub database: Database,
    pub registry: Arc<DeviceRegistry>,
    pub changes: Arc<DesiredChanges>,
}

impl DesiredFollower {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut delays = Circuit::new(Arc::default());
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.follow(&mut delays) => ended,
            };
            let failure = ended.err();
            warn!(
                ?failure,
                "changes of what devices are desired to be are not heard; trying again"
            );
            tokio::select! {
                () = stop.cancelled() => return,
                () = delays.open() => {}
            }
        }
    }

    /// Until the connection ends.
    async fn follow(&self, delays: &mut Circuit) -> Result<(), SinkError> {
        // Noting a change takes a short lock; the connection's task does it itself.
        let (registry, changes) = (Arc::clone(&self.registry), Arc::clone(&self.changes));
        let (open, mut ended) = mpsc::channel::<()>(1);
        let notice = move |message| {
            // Held until the connection's task is gone.
            let _ = &open;
            if let AsyncMessage::Notification(notification) = message {
                note(&registry, &changes, notification.payload());
            }
        };
        let client = self.database.connect(notice).await?;
        within_deadline(async {
            client
                .batch_execute("listen hse_device_attributes")
                .await
                .map_err(classify)
        })
        .await?;
        delays.close();
        self.changes.note_anybody();
        let _ = ended.recv().await;
        Ok(())
    }
}

fn note(registry: &DeviceRegistry, changes: &DesiredChanges, payload: &str) {
    let device = payload
        .split(' ')
        .next()
        .and_then(|id| Uuid::parse_str(id).ok());
    match device {
        Some(device) => changes.note(device, registry.gateway_of(device)),
        None => changes.note_anybody(),
    }
}
