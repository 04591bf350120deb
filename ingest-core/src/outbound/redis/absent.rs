//! Devices whose node has gone without a word: they are offline until they connect again, wherever that is.
//!
//! A node looks after its own earlier run when it starts, and after other nodes whose entry has expired. The states are looked
//! through a few at a time, because there may be many.

use std::collections::VecDeque;
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;
use tracing::info;

use super::form::{NODE_NAMES_KEY, NodeEntry, OFFLINE_KEPT_SECONDS, STATE_KEYS, json, node_key};

const ABANDON_SCRIPT: &str = include_str!("abandon.lua");
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Keys of one step, and steps of one look.
const KEYS_PER_STEP: usize = 500;
const STEPS_PER_LOOK: usize = 20;
const NODES_MAX: usize = 1000;

/// A node of which some process has gone.
struct Gone {
    name: String,
    /// The run of it that lives, as JSON; empty when none does.
    living_run: String,
    /// Where in the states we are.
    cursor: u64,
    num_abandoned: u64,
}

pub struct Absent {
    our_name: String,
    queue: VecDeque<Gone>,
    look_at: Instant,
}

impl Absent {
    pub fn new(node: &NodeEntry) -> Self {
        let earlier_run = Gone {
            name: node.name.clone(),
            living_run: json(&node.run),
            cursor: 0,
            num_abandoned: 0,
        };
        Self {
            our_name: node.name.clone(),
            queue: VecDeque::from([earlier_run]),
            look_at: Instant::now() + LOOK_EVERY,
        }
    }

    /// Goes on with the node that is being looked after, or looks whether another has gone.
    pub async fn look(&mut self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        for _ in 0..STEPS_PER_LOOK {
            let Some(gone) = self.queue.front_mut() else {
                break;
            };
            if gone.step(connection).await? {
                gone.forget(connection).await?;
                self.queue.pop_front();
            }
        }
        if self.queue.is_empty() && Instant::now() >= self.look_at {
            self.look_at = Instant::now() + LOOK_EVERY;
            self.find(connection).await?;
        }
        Ok(())
    }

    async fn find(&mut self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let names: Vec<String> = redis::cmd("SMEMBERS")
            .arg(NODE_NAMES_KEY)
            .query_async(connection)
            .await?;
        let others = names.into_iter().filter(|name| *name != self.our_name);
        for name in others.take(NODES_MAX) {
            let is_there: bool = redis::cmd("EXISTS")
                .arg(node_key(&name))
                .query_async(connection)
                .await?;
            if !is_there {
                self.queue.push_back(Gone {
                    name,
                    living_run: String::new(),
                    cursor: 0,
                    num_abandoned: 0,
                });
            }
        }
        Ok(())
    }
}

impl Gone {
    /// Looks through the next states. True when that was all of them.
    async fn step(&mut self, connection: &mut MultiplexedConnection) -> Result<bool, RedisError> {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(self.cursor)
            .arg("MATCH")
            .arg(STATE_KEYS)
            .arg("COUNT")
            .arg(KEYS_PER_STEP)
            .query_async(connection)
            .await?;
        if !keys.is_empty() {
            let mut call = redis::cmd("EVAL");
            call.arg(ABANDON_SCRIPT).arg(keys.len()).arg(keys);
            call.arg(json(&self.name)).arg(&self.living_run);
            call.arg(node_key(&self.name)).arg(OFFLINE_KEPT_SECONDS);
            let num_abandoned: u64 = call.query_async(connection).await?;
            self.num_abandoned += num_abandoned;
        }
        self.cursor = next;
        Ok(next == 0)
    }

    async fn forget(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let (name, num_devices) = (self.name.as_str(), self.num_abandoned);
        if num_devices > 0 {
            info!(
                name,
                num_devices, "devices of a node that has gone are offline"
            );
        }
        if !self.living_run.is_empty() {
            return Ok(());
        }
        let is_back: bool = redis::cmd("EXISTS")
            .arg(node_key(name))
            .query_async(connection)
            .await?;
        if is_back {
            return Ok(());
        }
        redis::cmd("SREM")
            .arg(NODE_NAMES_KEY)
            .arg(name)
            .query_async(connection)
            .await
    }
}
