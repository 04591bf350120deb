//! The lanes of a node: their journals, opened and read before anybody is let in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::StartError;
use crate::config::{Config, LANES_MAX};
use crate::journal::{self, JournalConfig, JournalObserver, OpenedJournal};
use crate::metrics::Metrics;
use crate::pipeline::entry::Entry;
use crate::pipeline::lane::Lane;
use crate::pipeline::sessions::Sessions;
use crate::pipeline::window::Watermark;

/// Opens the journals, of lanes that an earlier configuration left, too, and reads them whole.
///
/// # Errors
/// [`StartError`], of the first one that cannot be had.
pub fn open_lanes(
    config: &Config,
    metrics: &Arc<Metrics>,
    sessions: &Sessions,
) -> Result<Vec<Arc<Lane>>, StartError> {
    let directory = config.data_dir.join("journal");
    let num_lanes = config.lanes.max(num_lanes_on_disk(&directory)?);
    (0..num_lanes)
        .map(|lane| open_lane(config, &directory, lane, metrics, sessions))
        .collect()
}

fn num_lanes_on_disk(directory: &Path) -> Result<u16, StartError> {
    let found = |source| StartError::DataDir {
        path: directory.to_owned(),
        source,
    };
    std::fs::create_dir_all(directory).map_err(found)?;
    let mut num_lanes = 0;
    for entry in std::fs::read_dir(directory).map_err(found)? {
        let name = entry.map_err(found)?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("lane-"))
            .and_then(|number| number.parse::<u16>().ok());
        let number = number.filter(|number| *number < LANES_MAX);
        num_lanes = num_lanes.max(number.map_or(0, |number| number + 1));
    }
    Ok(num_lanes)
}

fn open_lane(
    config: &Config,
    directory: &Path,
    lane: u16,
    metrics: &Arc<Metrics>,
    sessions: &Sessions,
) -> Result<Arc<Lane>, StartError> {
    let journal_config = JournalConfig {
        lane: u32::from(lane),
        segment_bytes: config.journal_segment_bytes,
        bytes_max: config.journal_bytes_max,
        record_bytes_max: config.record_bytes_max(),
        ..JournalConfig::default()
    };
    let storage = journal::DirectoryStorage::create(&directory.join(format!("lane-{lane}")))
        .map_err(|source| StartError::DataDir {
            path: directory.to_owned(),
            source,
        })?;
    let opened = OpenedJournal::open(journal_config, Arc::new(storage))
        .map_err(|source| StartError::Journal { lane, source })?;
    let recovered = Recovered::read(&opened, lane, sessions)?;
    let journal = opened
        .start(Arc::clone(metrics) as Arc<dyn JournalObserver>)
        .map_err(|source| StartError::JournalStart { lane, source })?;
    info!(
        lane,
        num_events = recovered.num_events,
        bytes = journal.stats().undrained_bytes,
        "journal opened"
    );
    let lane = Arc::new(Lane::new(
        lane,
        journal,
        config.batch_rows_max,
        recovered.num_events,
        recovered.oldest_us,
    ));
    Ok(lane)
}

/// What a journal held when it was opened.
struct Recovered {
    num_events: u64,
    oldest_us: Option<i64>,
}

impl Recovered {
    fn read(opened: &OpenedJournal, lane: u16, sessions: &Sessions) -> Result<Self, StartError> {
        let mut recovered = Self {
            num_events: 0,
            oldest_us: None,
        };
        for record in opened.records() {
            let record = record.map_err(|source| StartError::Read { lane, source })?;
            let entry = Entry::decode(&record.payload).map_err(|source| StartError::Entry {
                lane,
                position: record.position,
                source,
            })?;
            if entry.is_sequenced() {
                let (epoch, seq) = (entry.epoch, entry.last_seq());
                sessions.recover(entry.device_id, Watermark { epoch, seq });
            }
            recovered.num_events += u64::from(entry.num_events);
            recovered.oldest_us.get_or_insert(entry.received_us);
        }
        Ok(recovered)
    }
}

impl JournalObserver for Metrics {
    fn group_committed(&self, num_records: usize, _bytes: usize, elapsed: Duration) {
        self.journal_append.observe(elapsed.as_secs_f64());
        #[expect(
            clippy::cast_precision_loss,
            reason = "a group has far fewer than 2^52 records"
        )]
        self.journal_group_records.observe(num_records as f64);
    }
}
