//! What the journal promises, on the fake storage where faults are wanted and on a real directory where not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::storage::{DirectoryStorage, Storage};
use super::testing::{FakeStorage, Faults};
use super::*;

pub const SEGMENT: u64 = 4096;

pub fn small() -> JournalConfig {
    JournalConfig {
        segment_bytes: SEGMENT,
        bytes_max: 1 << 20,
        ..JournalConfig::default()
    }
}

pub fn open(storage: &FakeStorage) -> Result<OpenedJournal, OpenError> {
    OpenedJournal::open(small(), storage.shared())
}

pub fn start(storage: &FakeStorage) -> JournalHandle {
    open(storage).unwrap().start(Arc::new(())).unwrap()
}

/// Of different lengths, so that records end at all alignments and segments are left with all kinds of rests.
pub fn payload(number: u64) -> Vec<u8> {
    let len = usize::try_from(number * 37 % 300).unwrap();
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((0..len).map(|i| u8::try_from((number + i as u64) % 251).unwrap()));
    bytes
}

pub fn append(journal: &JournalHandle, number: u64) -> Result<Appended, AppendError> {
    journal.append(payload(number))?.wait()
}

pub fn recovered(opened: &OpenedJournal) -> Vec<Vec<u8>> {
    opened
        .records()
        .map(|record| record.unwrap().payload.to_vec())
        .collect()
}

pub fn payloads(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers.map(payload).collect()
}

pub fn wait_until(mut is_reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_reached() {
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_was_appended_is_read_back_in_order_on_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal/lane-0");
    for round in 0..3 {
        let storage = Arc::new(DirectoryStorage::create(&path).unwrap());
        let opened = OpenedJournal::open(small(), storage).unwrap();
        assert_eq!(recovered(&opened), payloads(0..round * 100));
        assert_eq!(opened.is_sealed(), round > 0);
        let journal = opened.start(Arc::new(())).unwrap();
        let tickets =
            (round * 100..round * 100 + 100).map(|number| journal.append(payload(number)).unwrap());
        let places: Vec<Appended> = tickets
            .collect::<Vec<_>>()
            .into_iter()
            .map(|t| t.wait().unwrap())
            .collect();
        assert!(
            places
                .windows(2)
                .all(|pair| pair[0].end <= pair[1].position)
        );
        let mut reader = journal.reader(0);
        let mut read = Vec::new();
        loop {
            let batch = reader.next_batch(1000).unwrap();
            if batch.is_empty() {
                break;
            }
            read.extend(batch.into_iter().map(|record| record.payload.to_vec()));
        }
        assert_eq!(read, payloads(0..round * 100 + 100));
        assert_eq!(reader.position(), journal.state().durable_end);
        assert_eq!(
            journal.close(),
            Closing {
                is_sealed: true,
                condition: Condition::Closed
            }
        );
    }
    let inspection = inspect(&path).unwrap();
    assert_eq!(inspection.num_records, 300);
    assert_eq!(inspection.tail, InspectedTail::Sealed);
}

#[test]
fn one_sync_answers_all_that_waited() {
    #[derive(Default)]
    struct Counts(AtomicUsize, AtomicUsize);
    impl JournalObserver for Counts {
        fn group_committed(&self, num_records: usize, _bytes: usize, _elapsed: Duration) {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.1.fetch_add(num_records, Ordering::Relaxed);
        }
    }
    let storage = FakeStorage::new(1);
    let counts = Arc::new(Counts::default());
    let config = JournalConfig {
        segment_bytes: 1 << 20,
        bytes_max: 1 << 24,
        ..small()
    };
    let opened = OpenedJournal::open(config, storage.shared()).unwrap();
    let journal = opened
        .start(Arc::clone(&counts) as Arc<dyn JournalObserver>)
        .unwrap();
    wait_until(|| journal.stats().num_segments == 2);
    let hold = storage.hold();
    let first = journal.append(payload(0)).unwrap();
    wait_until(|| storage.num_held() > 0);
    let others: Vec<AppendTicket> = (1..200)
        .map(|number| journal.append(payload(number)).unwrap())
        .collect();
    let num_syncs = storage.num_syncs();
    drop(hold);
    first.wait().unwrap();
    for ticket in others {
        ticket.wait().unwrap();
    }
    assert_eq!(counts.0.load(Ordering::Relaxed), 2);
    assert_eq!(counts.1.load(Ordering::Relaxed), 200);
    assert_eq!(storage.num_syncs() - num_syncs, 2);
}

#[tokio::test]
async fn tickets_and_the_end_can_be_awaited() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    let end = journal.state().durable_end;
    let waiting = tokio::spawn({
        let journal = journal.clone();
        async move { journal.wait_for_durable(end).await }
    });
    let appended = journal.append(payload(1)).unwrap().await.unwrap();
    assert_eq!(waiting.await.unwrap().durable_end, appended.end);
    journal.close();
    assert_eq!(
        journal.wait_for_durable(appended.end).await.condition,
        Condition::Closed
    );
    assert_eq!(journal.append(payload(1)).unwrap_err(), AppendError::Closed);
    assert!(matches!(
        journal.free_up_to(appended.end),
        Err(FreeError::Closed)
    ));
}

#[test]
fn a_second_opener_is_refused_until_the_first_has_closed() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let storage = DirectoryStorage::create(directory.path()).unwrap();
        OpenedJournal::open(small(), Arc::new(storage))
    };
    let journal = open().unwrap().start(Arc::new(())).unwrap();
    assert!(matches!(open(), Err(OpenError::Locked { .. })));
    append(&journal, 1).unwrap();
    // Looking is allowed meanwhile.
    assert_eq!(inspect(directory.path()).unwrap().num_records, 1);
    journal.close();
    assert_eq!(recovered(&open().unwrap()), payloads(1..2));
}

#[test]
fn a_failed_sync_poisons_and_nothing_is_acknowledged_after_it() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    append(&journal, 0).unwrap();
    wait_until(|| journal.stats().num_segments == 2);
    storage.set_faults(Faults {
        fail_sync: Some(storage.num_syncs() + 1),
        ..Faults::default()
    });
    assert_eq!(append(&journal, 1), Err(AppendError::Poisoned));
    assert_eq!(append(&journal, 2), Err(AppendError::Poisoned));
    assert_eq!(journal.state().condition, Condition::Poisoned);
    assert_eq!(
        journal.close(),
        Closing {
            is_sealed: false,
            condition: Condition::Poisoned
        }
    );

    // The cache shows record 1 though the disk does not have it. It may be taken, but then it must be made durable
    // before anything is written after it: else the power cut would leave a hole.
    drop(journal);
    let storage = storage.kill();
    let opened = open(&storage).unwrap();
    let before = recovered(&opened);
    assert_eq!(before, payloads(0..2));
    let journal = opened.start(Arc::new(())).unwrap();
    append(&journal, 2).unwrap();
    let storage = storage.cut_power();
    assert_eq!(recovered(&open(&storage).unwrap()), payloads(0..3));
}

#[test]
fn a_broken_off_write_is_refused_and_leaves_no_trace() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    append(&journal, 0).unwrap();
    wait_until(|| journal.stats().num_segments == 2);
    storage.set_faults(Faults {
        write_bytes_max: Some(300),
        ..Faults::default()
    });
    let hold = storage.hold();
    let first = journal.append(vec![6; 40]).unwrap();
    wait_until(|| storage.num_held() > 0);
    // These become one write, half of which reaches the disk as whole records.
    let others: Vec<_> = (0..8)
        .map(|_| journal.append(vec![7; 40]).unwrap())
        .collect();
    drop(hold);
    let is_full = |answer| {
        matches!(
            answer,
            Err(AppendError::Full {
                cause: FullCause::Disk,
                ..
            })
        )
    };
    first.wait().unwrap();
    for ticket in others {
        assert!(is_full(ticket.wait()));
    }
    assert!(
        is_full(append(&journal, 5)),
        "what was broken off cannot be wiped yet"
    );
    storage.set_faults(Faults::default());
    // As long as one of the broken off: would end exactly where a stale one begins.
    journal.append(vec![8; 40]).unwrap().wait().unwrap();
    drop(journal);
    let opened = open(&storage.cut_power()).unwrap();
    assert_eq!(recovered(&opened), [payload(0), vec![6; 40], vec![8; 40]]);
}

#[test]
fn a_full_disk_refuses_and_freeing_makes_room() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    wait_until(|| journal.stats().num_segments == 2);
    storage.set_faults(Faults {
        bytes_max: Some(storage.bytes()),
        ..Faults::default()
    });
    let mut number = 0;
    let mut last = None;
    let error = loop {
        match append(&journal, number) {
            Ok(appended) => last = Some(appended),
            Err(error) => break error,
        }
        number += 1;
    };
    assert!(matches!(
        error,
        AppendError::Full {
            cause: FullCause::Disk,
            ..
        }
    ));
    assert_eq!(journal.stats().num_segments, 2);
    // The cursor is writable on the full disk, and the freed segment becomes the next one.
    journal.free_up_to(last.unwrap().end).unwrap();
    wait_until(|| append(&journal, number).is_ok());
    journal.close();
    let opened = open(&storage.cut_power()).unwrap();
    assert_eq!(recovered(&opened), payloads(number..number + 1));
}

#[test]
fn what_follows_a_refused_record_in_its_group_is_refused_too() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    wait_until(|| journal.stats().num_segments == 2);
    storage.set_faults(Faults {
        bytes_max: Some(storage.bytes()),
        ..Faults::default()
    });
    journal.append(vec![0; 4000]).unwrap().wait().unwrap();
    journal.append(vec![0; 3000]).unwrap().wait().unwrap();
    let hold = storage.hold();
    let first = journal.append(vec![1; 40]).unwrap();
    wait_until(|| storage.num_held() > 0);
    let others = [40, 3000, 40].map(|len| journal.append(vec![2; len]).unwrap());
    drop(hold);
    first.wait().unwrap();
    assert_eq!(
        others.map(|ticket| ticket.wait().is_ok()),
        [true, false, false]
    );
    journal.append(vec![3; 40]).unwrap().wait().unwrap();
}

#[test]
fn a_journal_that_stops_between_two_segments_on_a_full_disk_opens_again() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    wait_until(|| journal.stats().num_segments == 2);
    storage.set_faults(Faults {
        bytes_max: Some(storage.bytes()),
        ..Faults::default()
    });
    // Two records fill a segment to its last byte.
    let half = vec![1; usize::try_from(SEGMENT / 2).unwrap() - 24];
    for _ in 0..4 {
        journal.append(half.clone()).unwrap().wait().unwrap();
    }
    assert_eq!(journal.state().durable_end, SEGMENT * 2);
    journal.free_up_to(SEGMENT).unwrap();
    wait_until(|| journal.append(half.clone()).unwrap().wait().is_ok());
    journal.append(half.clone()).unwrap().wait().unwrap();
    wait_until(|| journal.append(half.clone()).unwrap().wait().is_err());
    assert!(!journal.close().is_sealed);
    let storage = storage.cut_power();
    let opened = open(&storage).unwrap();
    assert_eq!((opened.end(), opened.num_records()), (SEGMENT * 3, 4));
    let journal = opened.start(Arc::new(())).unwrap();
    wait_until(|| journal.append(half.clone()).unwrap().wait().is_ok());
    journal.free_up_to(SEGMENT * 3).unwrap();
    drop(journal);
    assert_eq!(open(&storage.cut_power()).unwrap().num_records(), 1);
}

#[test]
fn a_full_journal_refuses_until_it_is_drained_to_the_low_watermark() {
    let storage = FakeStorage::new(1);
    let config = JournalConfig {
        bytes_max: SEGMENT * 4,
        resume_percent: 50,
        ..small()
    };
    let journal = OpenedJournal::open(config, storage.shared())
        .unwrap()
        .start(Arc::new(()))
        .unwrap();
    let mut ends = Vec::new();
    let error = loop {
        match journal
            .append(vec![0; 1000])
            .map(|ticket| ticket.wait().unwrap())
        {
            Ok(appended) => ends.push(appended.end),
            Err(error) => break error,
        }
    };
    assert!(matches!(
        error,
        AppendError::Full {
            cause: FullCause::Undrained,
            ..
        }
    ));
    assert!(journal.stats().undrained_bytes <= SEGMENT * 4);
    journal.free_up_to(ends[1]).unwrap();
    assert!(
        journal.append(vec![0; 8]).is_err(),
        "still above the low watermark"
    );
    journal.free_up_to(ends[ends.len() / 2 + 1]).unwrap();
    journal.append(vec![0; 8]).unwrap().wait().unwrap();
}

#[test]
fn a_slow_disk_bounds_what_waits() {
    let storage = FakeStorage::new(1);
    let config = JournalConfig {
        queue_bytes_max: 10_000,
        ..small()
    };
    let journal = OpenedJournal::open(config, storage.shared())
        .unwrap()
        .start(Arc::new(()))
        .unwrap();
    let hold = storage.hold();
    let mut tickets = Vec::new();
    let error = loop {
        match journal.append(vec![0; 1000]) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
    };
    assert!(matches!(
        error,
        AppendError::Full {
            cause: FullCause::Queue,
            ..
        }
    ));
    assert_eq!(tickets.len(), 9);
    drop(hold);
    assert!(tickets.into_iter().all(|ticket| ticket.wait().is_ok()));
    append(&journal, 1).unwrap();
}

#[test]
fn a_record_larger_than_a_segment_is_refused_and_the_largest_fits() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    let largest = usize::try_from(SEGMENT).unwrap() - 24;
    append(&journal, 1).unwrap();
    journal.append(vec![5; largest]).unwrap().wait().unwrap();
    assert!(matches!(
        journal.append(vec![5; largest + 1]),
        Err(AppendError::TooLarge { .. })
    ));
    append(&journal, 2).unwrap();
    journal.close();
    drop(journal);
    let opened = open(&storage.cut_power()).unwrap();
    assert_eq!(
        recovered(&opened),
        [payload(1), vec![5; largest], payload(2)]
    );
}

#[test]
fn freed_segments_are_recycled_and_their_old_records_are_not_read() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    let mut last_end = 0;
    for number in 0..400 {
        last_end = append(&journal, number).unwrap().end;
        if number % 20 == 19 {
            journal.free_up_to(last_end).unwrap();
        }
    }
    assert!(journal.stats().num_segments <= 3 && journal.stats().num_spare_segments <= 2);
    assert!(last_end > SEGMENT * 12);
    for number in 400..405 {
        append(&journal, number).unwrap();
    }
    let opened = open(&storage.cut_power()).unwrap();
    assert_eq!(recovered(&opened), payloads(400..405));
    assert!(opened.cursor_position() == last_end);
}

#[test]
fn freeing_beyond_the_end_is_refused() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    let end = append(&journal, 1).unwrap().end;
    assert!(matches!(
        journal.free_up_to(end + 8),
        Err(FreeError::BeyondEnd { .. })
    ));
    journal.free_up_to(end).unwrap();
    journal.free_up_to(0).unwrap();
    assert_eq!(journal.stats().freed_up_to, end);
}

#[test]
fn a_drained_and_closed_journal_has_nothing_undrained() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    let end = append(&journal, 1).unwrap().end;
    journal.free_up_to(end).unwrap();
    journal.close();
    let journal = start(&storage);
    assert_eq!(journal.stats().undrained_bytes, 0);
    assert_eq!(
        journal.stats().freed_up_to,
        end,
        "what the database knows, not past the seal"
    );
    let mut reader = journal.reader(end);
    assert!(reader.next_batch(1000).unwrap().is_empty());
    assert_eq!(reader.position(), journal.state().durable_end);
}

#[test]
fn a_new_generation_outlives_reopening() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    let id = journal.journal_id();
    journal.begin_generation(2).unwrap();
    assert_eq!(journal.generation(), 2);
    drop(journal);
    let opened = open(&storage.cut_power()).unwrap();
    assert_eq!((opened.generation(), opened.journal_id()), (2, id));
}

#[test]
fn where_the_journal_ended_is_remembered_until_there_was_an_agreement() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    assert_eq!(journal.unagreed_end(), 0);
    append(&journal, 1).unwrap();
    drop(journal);
    let reopened = start(&storage);
    assert_eq!(reopened.unagreed_end(), 0, "nobody has agreed since");
    reopened.note_agreement().unwrap();
    assert_eq!(reopened.unagreed_end(), u64::MAX);
    let end = append(&reopened, 2).unwrap().end;
    drop(reopened);
    assert!((end..u64::MAX).contains(&start(&storage).unagreed_end()));
}

#[test]
fn what_belongs_behind_a_refused_record_is_refused_too() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    wait_until(|| journal.stats().num_segments == 2);
    storage.set_faults(Faults {
        bytes_max: Some(storage.bytes()),
        ..Faults::default()
    });
    journal.append(vec![0; 4000]).unwrap().wait().unwrap();
    journal.append(vec![0; 3000]).unwrap().wait().unwrap();
    let seen = journal.num_refusals();
    // It needs a segment for which there is no room; the small one behind it would fit into what is left of this one.
    let large = journal.append_after(vec![1; 3000], seen);
    assert!(large.and_then(AppendTicket::wait).is_err());
    assert!(journal.append_after(vec![2; 8], seen).is_err());
    journal.append(vec![3; 8]).unwrap().wait().unwrap();
}

#[test]
fn limits_out_of_range_are_named() {
    let refused = |config: JournalConfig| config.validate().unwrap_err().field;
    assert_eq!(
        refused(JournalConfig {
            segment_bytes: 5000,
            ..small()
        }),
        "segment_bytes"
    );
    assert_eq!(
        refused(JournalConfig {
            bytes_max: SEGMENT,
            ..small()
        }),
        "bytes_max"
    );
    assert_eq!(
        refused(JournalConfig {
            resume_percent: 101,
            ..small()
        }),
        "resume_percent"
    );
    assert_eq!(
        refused(JournalConfig {
            group_bytes_max: 0,
            ..small()
        }),
        "group_bytes_max"
    );
    JournalConfig::default().validate().unwrap();
}

#[test]
fn creating_a_directory_makes_those_above_it_and_takes_one_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    assert_eq!(DirectoryStorage::create(&path).unwrap().list().unwrap(), []);
    DirectoryStorage::create(&path).unwrap();
    std::fs::write(path.join("file"), "").unwrap();
    assert!(DirectoryStorage::create(&path.join("file")).is_err());
}
