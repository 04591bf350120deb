//! Which changes a reader wants.

use std::collections::HashSet;

use uuid::Uuid;

use super::change::{Change, ChangeContent, LiveItem, Outline};

/// What a reader wants. The default takes every event and no connection.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// None takes those of every device.
    pub device_ids: Option<HashSet<Uuid, foldhash::fast::RandomState>>,
    /// None takes every type.
    pub event_types: Option<HashSet<String>>,
    pub with_connections: bool,
}

impl Filter {
    /// False when nothing of the change can be wanted, told without decoding it.
    #[must_use]
    pub fn may_take(&self, change: &Change) -> bool {
        let is_wanted = |device_id| {
            let wanted = self.device_ids.as_ref();
            wanted.is_none_or(|wanted| wanted.contains(device_id))
        };
        match &change.content {
            ChangeContent::Events {
                outline: Outline::Mixed,
                ..
            } => true,
            ChangeContent::Events {
                outline: Outline::Own { newest_offset },
                ..
            } => newest_offset.is_some() && is_wanted(&change.device_id),
            ChangeContent::Connected(_) | ChangeContent::Disconnected { .. } => {
                self.with_connections && is_wanted(&change.device_id)
            }
        }
    }

    /// Is this one wanted?
    #[must_use]
    pub fn takes(&self, item: &LiveItem<'_>) -> bool {
        let device_id = match item {
            LiveItem::Event(event) => {
                let event_type = event.event.event_type;
                if (self.event_types.as_ref()).is_some_and(|types| !types.contains(event_type)) {
                    return false;
                }
                event.device_id
            }
            LiveItem::Connected(connection) | LiveItem::Disconnected { connection, .. } => {
                if !self.with_connections {
                    return false;
                }
                connection.device_id
            }
        };
        let wanted = self.device_ids.as_ref();
        wanted.is_none_or(|wanted| wanted.contains(&device_id))
    }
}
