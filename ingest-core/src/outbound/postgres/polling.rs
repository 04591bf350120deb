//! Holds shares of what is polled, so that of several nodes one asks each endpoint (ADR 26).
//!
//! **Invariants.** A share is given away after its last line has ended, and given up well before another node may take it;
//! unless this node was alone when it heard of the database last: then nobody was there to take it, and polling goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::connection::{Database, classify, log_notice};
use crate::config::LAST_WORDS_TIMEOUT;
use crate::pipeline::polling::{PollingShares, Shares};
use crate::pipeline::ports::SinkError;
use crate::pipeline::registry::DeviceRegistry;

const HOLD: &str = "select held, num_fair, num_nodes from hold_polling_shares($1, $2, $3, $4)";
const LEAVE: &str = "select leave_polling($1)";

/// Asks for shares for as long as there is something to poll.
pub struct PollingLease {
    pub database: Database,
    pub registry: Arc<DeviceRegistry>,
    pub shares: Arc<PollingShares>,
    /// Stays the same over restarts, so that a node finds its own shares again.
    pub holder: Uuid,
    pub node_name: String,
    /// Another node may take a share that was not asked for again for so long.
    pub lease: Duration,
    /// Set when the node begins to stop.
    pub stopping: CancellationToken,
}

/// What the database said.
struct Held {
    shares: Shares,
    num_fair: usize,
    num_nodes: i32,
}

/// What of it counts.
struct Lease {
    shares: Shares,
    is_alone: bool,
    /// When it was asked for.
    since: Instant,
}

impl PollingLease {
    /// Runs until the node has stopped polling, and what it held was given away.
    pub async fn run(self) {
        tokio::select! {
            () = self.stopping.cancelled() => {}
            () = self.something_to_poll() => {
                let _ = self.stopping.run_until_cancelled(self.hold_shares()).await;
                // Given away at once: nobody need wait until they have run out.
                self.shares.hold(Shares::NONE);
                self.leave().await;
            }
        }
    }

    async fn hold_shares(&self) -> std::convert::Infallible {
        let mut lease = Lease {
            shares: Shares::NONE,
            is_alone: false,
            since: Instant::now(),
        };
        let (mut client, mut is_away) = (None, false);
        loop {
            let asked_at = Instant::now();
            let kept = lease.shares.and(self.shares.in_use());
            match timeout(self.lease / 8, self.renew(&mut client, kept)).await {
                Ok(Ok(held)) => {
                    is_away = false;
                    lease = self.note_held(&lease, &held, asked_at);
                }
                failed => {
                    client = None;
                    if !std::mem::replace(&mut is_away, true) {
                        let error = failed.map_or_else(|_| None, |failed| failed.err());
                        warn!(
                            ?error,
                            lease.is_alone, "shares of what is polled could not be asked for"
                        );
                    }
                    if !lease.is_alone && lease.since.elapsed() > self.lease / 2 {
                        lease.shares = Shares::NONE;
                    }
                }
            }
            self.shares.hold(lease.shares);
            sleep(self.lease / 10).await;
        }
    }

    /// A node that has nothing to poll does not stand in the way of those that have.
    async fn something_to_poll(&self) {
        let mut changes = self.registry.polling_changes();
        while self.registry.polled().is_empty() {
            // The registry is ours, so it is not gone.
            let _ = changes.changed().await;
        }
    }

    async fn renew(&self, client: &mut Option<Client>, kept: Shares) -> Result<Held, SinkError> {
        let client = match client {
            Some(client) => client,
            None => client.insert(self.database.connect(log_notice).await?),
        };
        let lease_ms = i32::try_from(self.lease.as_millis()).unwrap_or(i32::MAX);
        let row = (client)
            .query_one(
                HOLD,
                &[&self.holder, &self.node_name, &kept.numbers(), &lease_ms],
            )
            .await
            .map_err(classify)?;
        let read = || {
            Ok::<_, tokio_postgres::Error>(Held {
                shares: Shares::of(&row.try_get::<_, Vec<i16>>(0)?),
                num_fair: usize::try_from(row.try_get::<_, i32>(1)?).unwrap_or(0),
                num_nodes: row.try_get(2)?,
            })
        };
        read().map_err(classify)
    }

    fn note_held(&self, before: &Lease, held: &Held, since: Instant) -> Lease {
        let shares = held.shares.first(held.num_fair);
        if shares != before.shares {
            let (num_shares, num_nodes) = (shares.numbers().len(), held.num_nodes);
            info!(
                num_shares,
                num_nodes, "shares of what is polled have changed"
            );
        }
        Lease {
            shares,
            is_alone: held.num_nodes == 1,
            since,
        }
    }

    async fn leave(&self) {
        let left = timeout(LAST_WORDS_TIMEOUT, async {
            self.shares.idle().await;
            let client = self.database.connect(log_notice).await?;
            let left = client.query_one(LEAVE, &[&self.holder]).await;
            left.map_err(classify)
        });
        if !matches!(left.await, Ok(Ok(_))) {
            warn!("shares of what is polled were not given away: others wait until they run out");
        }
    }
}
