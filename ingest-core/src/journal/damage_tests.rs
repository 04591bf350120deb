//! A small journal, broken at every byte.

use std::sync::Arc;

use super::record::{HEADER_BYTES, RecordKind, Seed};
use super::segment::{Layout, file_name, follow, in_memory};
use super::storage::Storage;
use super::testing::FakeStorage;
use super::tests::{SEGMENT, append, open, payload, payloads, recovered, start, wait_until};
use super::*;

const NUM_SINGLE: u64 = 52;
const NUM_RECORDS: u64 = 58;

/// Records written one by one, and a last write of several.
fn journal_of_three_segments(is_closed: bool) -> FakeStorage {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    for number in 0..NUM_SINGLE - 1 {
        append(&journal, number).unwrap();
    }
    wait_until(|| journal.stats().num_segments == 4);
    let hold = storage.hold();
    let mut tickets = vec![journal.append(payload(NUM_SINGLE - 1)).unwrap()];
    wait_until(|| storage.num_held() > 0);
    tickets
        .extend((NUM_SINGLE..NUM_RECORDS).map(|number| journal.append(payload(number)).unwrap()));
    drop(hold);
    tickets
        .into_iter()
        .for_each(|ticket| assert!(ticket.wait().is_ok()));
    if is_closed {
        assert!(journal.close().is_sealed);
    }
    storage.copy()
}

#[derive(Clone, Copy, Debug)]
struct Place {
    kind: RecordKind,
    position: u64,
    /// Of the bytes that mean something: header and payload.
    end: u64,
    group_start: u64,
    /// Data records before this one.
    num_before: u64,
}

fn places(storage: &FakeStorage) -> Vec<Place> {
    let journal_id = open(&storage.copy()).unwrap().journal_id();
    let layout = Layout {
        segment_bytes: SEGMENT,
        seed: Seed::of(journal_id),
    };
    let mut places = Vec::new();
    let mut num_before = 0;
    for index in 0..3 {
        follow(
            layout,
            &storage.read_file(&file_name(index)),
            index * SEGMENT,
            |record| {
                places.push(Place {
                    kind: record.header.kind,
                    position: record.header.position,
                    end: record.header.position + (HEADER_BYTES + record.payload.len()) as u64,
                    group_start: record.header.group_start(),
                    num_before,
                });
                num_before += u64::from(record.header.kind == RecordKind::Data);
            },
        );
    }
    assert_eq!(num_before, NUM_RECORDS);
    places
}

fn damaged(
    storage: &FakeStorage,
    position: u64,
    damage: impl FnOnce(&mut Vec<u8>, usize),
) -> FakeStorage {
    let copy = storage.copy();
    copy.damage_file(&file_name(position / SEGMENT), |bytes| {
        damage(bytes, in_memory(position % SEGMENT))
    });
    copy
}

fn assert_refused_at(opened: Result<OpenedJournal, OpenError>, place: &Place, next_readable: u64) {
    match opened {
        Err(OpenError::Damaged {
            directory,
            file,
            offset,
            position,
            next_readable: next,
        }) => {
            assert_eq!(
                (file, offset),
                (
                    file_name(place.position / SEGMENT),
                    place.position % SEGMENT
                )
            );
            assert_eq!((position, next), (place.position, next_readable));
            assert_eq!(directory, "/fake/lane-0");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("damage at {place:?} was not noticed"),
    }
}

#[test]
fn every_flipped_byte_is_cut_from_the_last_write_and_refused_before_it() {
    let storage = journal_of_three_segments(false);
    let places = places(&storage);
    let last_group = places.last().unwrap().group_start;
    let mut num_refused = 0;
    for byte in 0..3 * SEGMENT {
        let flipped = damaged(&storage, byte, |bytes, at| bytes[at] ^= 1 << (byte % 8));
        let opened = open(&flipped);
        let Some(at) = places
            .iter()
            .position(|place| (place.position..place.end).contains(&byte))
        else {
            assert_eq!(
                recovered(&opened.unwrap()),
                payloads(0..NUM_RECORDS),
                "byte {byte} means nothing"
            );
            continue;
        };
        let place = &places[at];
        if place.group_start < last_group {
            assert_refused_at(opened, place, places[at + 1].position);
            num_refused += 1;
            continue;
        }
        let opened = opened.unwrap();
        assert_eq!(recovered(&opened), payloads(0..place.num_before));
        assert_eq!(opened.end(), place.position);
        // What lies behind it belongs to the same write and is never read again, whatever is written in its place.
        let journal = opened.start(Arc::new(())).unwrap();
        let again = append(&journal, place.num_before).unwrap();
        assert_eq!(again.position, place.position);
        let opened = open(&flipped.cut_power()).unwrap();
        assert_eq!(recovered(&opened), payloads(0..place.num_before + 1));
    }
    assert!(num_refused > 2 * SEGMENT);
}

#[test]
fn after_a_clean_close_every_flipped_byte_of_a_record_is_refused() {
    let storage = journal_of_three_segments(true);
    let places = places(&storage);
    assert_eq!(places.last().unwrap().kind, RecordKind::Seal);
    for byte in 0..3 * SEGMENT {
        let flipped = damaged(&storage, byte, |bytes, at| bytes[at] ^= 0x80);
        let at = places
            .iter()
            .position(|place| (place.position..place.end).contains(&byte));
        match at.map(|at| (&places[at], places.get(at + 1))) {
            Some((place, Some(next))) => assert_refused_at(open(&flipped), place, next.position),
            // Nothing, or the seal itself.
            None | Some((_, None)) => assert_eq!(
                recovered(&open(&flipped).unwrap()),
                payloads(0..NUM_RECORDS)
            ),
        }
    }
}

#[test]
fn a_journal_whose_end_never_reached_the_disk_is_cut_at_every_byte() {
    let storage = journal_of_three_segments(false);
    let places = places(&storage);
    let end = places.last().unwrap().end;
    for byte in 0..=end {
        let cut = storage.copy();
        for index in byte / SEGMENT..4 {
            let from = in_memory(byte.saturating_sub(index * SEGMENT));
            cut.damage_file(&file_name(index), |bytes| bytes[from..].fill(0));
        }
        // A record that ends in zeros is whole without them.
        let is_whole = |place: &&Place| {
            let file = storage.read_file(&file_name(place.position / SEGMENT));
            let (start, end) = (byte.clamp(place.position, place.end), place.end);
            let base = place.position / SEGMENT * SEGMENT;
            file[in_memory(start - base)..in_memory(end - base)]
                .iter()
                .all(|&byte| byte == 0)
        };
        let data = places
            .iter()
            .take_while(is_whole)
            .filter(|place| place.kind == RecordKind::Data);
        assert_eq!(
            recovered(&open(&cut).unwrap()),
            payloads(0..data.count() as u64),
            "cut at {byte}"
        );
    }
}

#[test]
fn a_shortened_segment_is_refused_and_repair_keeps_what_is_readable() {
    let storage = journal_of_three_segments(false);
    let places = places(&storage);
    for byte in (1..SEGMENT).step_by(97) {
        let cut = damaged(&storage, SEGMENT + byte, |bytes, at| bytes.truncate(at));
        let Err(OpenError::WrongSegmentSize {
            file,
            found,
            expected,
            ..
        }) = open(&cut)
        else {
            panic!("a segment of {byte} bytes was taken");
        };
        assert_eq!((file, found, expected), (file_name(1), byte, SEGMENT));
        let report = repair(cut.shared()).unwrap();
        assert_eq!(report.remade_segments, [file_name(1)]);
        let opened = open(&cut.cut_power()).unwrap();
        let found = recovered(&opened);
        let is_kept = |place: &&Place| {
            place.kind == RecordKind::Data
                && (place.position / SEGMENT != 1 || place.end <= SEGMENT + byte)
        };
        let expected: Vec<_> = places
            .iter()
            .filter(is_kept)
            .map(|place| payload(place.num_before))
            .collect();
        assert!(expected.iter().all(|one| found.contains(one)));
        assert!(found.len() <= expected.len() + 1 && report.num_records == found.len() as u64);
    }
}

#[test]
fn repair_gives_up_only_the_record_that_is_damaged_and_says_which() {
    let storage = journal_of_three_segments(true);
    let places = places(&storage);
    for pair in places.windows(2) {
        let (place, next) = (pair[0], pair[1]);
        let broken = damaged(&storage, place.position + 5, |bytes, at| bytes[at] ^= 0xff);
        assert!(open(&broken).is_err());
        let report = repair(broken.shared()).unwrap();
        let lost = LostStretch {
            file: file_name(place.position / SEGMENT),
            offset: place.position % SEGMENT,
            position: place.position,
            end: next.position,
        };
        assert_eq!((report.lost, report.cursor_moved_to), (vec![lost], None));
        assert_eq!(
            repair(broken.shared()).unwrap().lost,
            [],
            "a second repair finds nothing"
        );
        let opened = open(&broken.cut_power()).unwrap();
        let mut expected = payloads(0..NUM_RECORDS);
        if place.kind == RecordKind::Data {
            expected.remove(usize::try_from(place.num_before).unwrap());
        }
        assert_eq!(recovered(&opened), expected);
        assert!(opened.is_sealed());
    }
}

#[test]
fn a_missing_segment_is_refused_and_repair_goes_on_without_it() {
    let storage = journal_of_three_segments(true);
    let places = places(&storage);
    for missing in [0, 1] {
        let broken = storage.copy();
        broken.unlink(&file_name(missing)).unwrap();
        let Err(OpenError::MissingSegment { file, .. }) = open(&broken) else {
            panic!("not noticed")
        };
        assert_eq!(file, file_name(missing));
        let report = repair(broken.shared()).unwrap();
        let lost = LostStretch {
            file: file_name(missing),
            offset: 0,
            position: missing * SEGMENT,
            end: (missing + 1) * SEGMENT,
        };
        assert_eq!(report.lost, [lost]);
        assert_eq!(report.cursor_moved_to, (missing == 0).then_some(SEGMENT));
        let opened = open(&broken.cut_power()).unwrap();
        let is_kept =
            |place: &&Place| place.kind == RecordKind::Data && place.position / SEGMENT != missing;
        let expected: Vec<_> = places
            .iter()
            .filter(is_kept)
            .map(|place| payload(place.num_before))
            .collect();
        assert_eq!(recovered(&opened), expected);
    }
}

#[test]
fn inspection_says_what_opening_would_and_changes_nothing() {
    let storage = journal_of_three_segments(false);
    let places = places(&storage);
    let look = |storage: &FakeStorage| super::inspect::inspect_storage(storage).unwrap();
    let seen = look(&storage);
    assert_eq!(
        (seen.num_records, &seen.tail),
        (NUM_RECORDS, &InspectedTail::Open)
    );
    assert_eq!((seen.first_position, seen.undrained_bytes), (0, seen.end));
    assert_eq!(
        seen.segments.iter().map(|one| one.num_records).sum::<u64>(),
        NUM_RECORDS
    );

    let last = places.last().unwrap();
    let torn = damaged(&storage, last.position + 5, |bytes, at| bytes[at] ^= 1);
    assert!(
        matches!(look(&torn).tail, InspectedTail::Torn { position, .. } if position == last.position)
    );
    let broken = damaged(&storage, places[3].position + 5, |bytes, at| bytes[at] ^= 1);
    assert!(
        matches!(look(&broken).tail, InspectedTail::Damaged { position, .. } if position == places[3].position)
    );
    assert_eq!((torn.num_changes(), broken.num_changes()), (0, 0));
    let missing = storage.copy();
    missing.unlink(&file_name(1)).unwrap();
    assert_eq!(
        look(&missing).tail,
        InspectedTail::MissingSegment { file: file_name(1) }
    );
}

#[test]
fn a_torn_cursor_slot_leaves_the_older_one() {
    let storage = FakeStorage::new(1);
    let journal = start(&storage);
    let ends: Vec<u64> = (0..4)
        .map(|number| append(&journal, number).unwrap().end)
        .collect();
    journal.free_up_to(ends[0]).unwrap();
    journal.free_up_to(ends[1]).unwrap();
    drop(journal);
    let newest = open(&storage.copy()).unwrap();
    assert_eq!(newest.cursor_position(), ends[1]);
    let slot = in_memory(newest.cursor.sequence % 2) * 4096;
    for byte in 0..52 {
        let torn = storage.copy();
        torn.damage_file("CURSOR", |bytes| bytes[slot + byte] ^= 1);
        let opened = open(&torn).unwrap();
        assert_eq!(
            (opened.cursor_position(), recovered(&opened)),
            (ends[0], payloads(1..4))
        );
    }
    let broken = storage.copy();
    broken.damage_file("CURSOR", |bytes| bytes.fill(0xff));
    assert!(matches!(
        open(&broken),
        Err(OpenError::CursorDamaged { .. })
    ));
    let report = repair(broken.shared()).unwrap();
    assert_eq!((report.cursor_moved_to, report.lost.len()), (Some(0), 0));
    assert_eq!(
        recovered(&open(&broken.cut_power()).unwrap()),
        payloads(0..4)
    );
}

#[test]
fn files_that_do_not_belong_together_are_refused_each_by_its_own_error() {
    let storage = journal_of_three_segments(true);
    let broken = |damage: &dyn Fn(&FakeStorage)| {
        let copy = storage.copy();
        damage(&copy);
        open(&copy).map(|_| ()).unwrap_err()
    };
    let other = journal_of_three_segments(true);
    let foreign =
        broken(&|copy| copy.damage_file("CURSOR", |bytes| *bytes = other.read_file("CURSOR")));
    assert!(matches!(foreign, OpenError::ForeignCursor { .. }));
    let newer = broken(&|copy| copy.damage_file("META", |bytes| bytes[8] = 2));
    assert!(matches!(
        newer,
        OpenError::NewerFormat {
            found: 2,
            known: 1,
            ..
        }
    ));
    for byte in (0..8).chain(16..52) {
        let damaged = broken(&|copy| copy.damage_file("META", |bytes| bytes[byte] ^= 1));
        assert!(matches!(damaged, OpenError::MetaDamaged { .. }));
    }
    assert!(matches!(
        broken(&|copy| copy.unlink("META").unwrap()),
        OpenError::MetaMissing { .. }
    ));
    assert!(matches!(
        broken(&|copy| copy.unlink("CURSOR").unwrap()),
        OpenError::CursorMissing { .. }
    ));
    let old = storage.copy();
    let meta = old.read_file("META");
    let journal = open(&old).unwrap().start(Arc::new(())).unwrap();
    journal.begin_generation(2).unwrap();
    // The cursor carries the generation from its next write on.
    journal.note_agreement().unwrap();
    drop(journal);
    let old = old.kill();
    old.damage_file("META", |bytes| *bytes = meta);
    assert!(matches!(
        open(&old),
        Err(OpenError::OldMeta {
            meta: 1,
            cursor: 2,
            ..
        })
    ));
}
