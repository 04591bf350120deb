//! What the pipeline asks of the world behind it.

use uuid::Uuid;

use super::batch::Batch;

/// How far a journal was stored, as the database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCursor {
    pub generation: u64,
    pub position: u64,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// Committed by this call.
    Stored(Stored),
    /// An earlier call had committed it; its answer was lost on the way.
    WasStored,
    /// The database's cursor stands elsewhere: begin again from there.
    Moved,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub num_rows: usize,
    /// Events left out because the database had them.
    pub num_already_stored: usize,
    /// By code, for the metrics.
    pub dead_letters: Vec<(&'static str, usize)>,
}

/// The database did not take a batch, and not for its content: it is away, or not as it should be. Nothing of the
/// batch was stored, or its outcome is unknown; the next call finds out.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("database is away: {0}")]
    Away(String),
    #[error("no answer from the database within {0:?}")]
    Deadline(std::time::Duration),
    #[error("database refuses for a reason that is not the data; an operator must mend it: {0}")]
    Misconfigured(String),
}

/// Which events of one device.
#[derive(Debug, Clone)]
pub struct EventQuery {
    pub device_id: Uuid,
    /// From then on, microseconds since 1970; none: from the first.
    pub from_us: Option<i64>,
    /// Up to and without it; none: to the last.
    pub to_us: Option<i64>,
    /// Empty takes all.
    pub event_types: Vec<String>,
    /// Leaves out what the core itself said of the device.
    pub is_reported_only: bool,
    pub limit: u32,
}

/// A row of `device_events`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    pub time_us: i64,
    pub event_type: String,
    pub value: Option<f64>,
    pub unit: Option<String>,
    pub metadata: Option<serde_json::Value>,
}

/// What became of a device's offer to be claimed; anything but `Offered` changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOutcome {
    Offered,
    /// It has its place already.
    Placed,
    /// People gave it a code, which stands.
    Coded,
    /// The code waits for another device.
    Taken,
    Unknown,
}

impl ClaimOutcome {
    /// As the database says it.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text {
            "offered" => Self::Offered,
            "placed" => Self::Placed,
            "coded" => Self::Coded,
            "taken" => Self::Taken,
            _ => Self::Unknown,
        }
    }

    /// Why it is not as the device wanted; none where it is.
    #[must_use]
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Offered => None,
            Self::Placed => {
                Some("the device has its place: it is moved by who may, and not claimed")
            }
            Self::Coded => Some("the device was given a claim code by people, which stands"),
            Self::Taken => Some("another device waits with this code"),
            Self::Unknown => Some("unknown or disabled device"),
        }
    }
}

/// Where batches go. One for each lane, used by one task.
pub trait Sink: Send + 'static {
    /// What of a batch can be prepared while another is being stored, and what that takes.
    type Form: Send + 'static;
    type FormSettings: Clone + Send + 'static;

    fn form_settings(&self) -> Self::FormSettings;

    fn form(settings: &Self::FormSettings, batch: &Batch) -> Self::Form;

    /// Reads the cursor; none when the database does not know this journal.
    fn cursor(&mut self) -> impl Future<Output = Result<Option<StoredCursor>, SinkError>> + Send;

    /// Makes the cursor, or sets it when journal and database have parted (see `drain`).
    fn set_cursor(
        &mut self,
        to: StoredCursor,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Stores a batch and moves the cursor from `batch.start` to `batch.end`, in one transaction.
    fn store(
        &mut self,
        generation: u64,
        batch: &mut Batch,
        form: Self::Form,
    ) -> impl Future<Output = Result<StoreOutcome, SinkError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_database_says_is_an_outcome() {
        for (text, refusal) in [("offered", false), ("placed", true), ("new word", true)] {
            assert_eq!(ClaimOutcome::of(text).refusal().is_some(), refusal);
        }
    }
}
