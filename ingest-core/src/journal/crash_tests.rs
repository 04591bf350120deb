//! Crashes: at every operation, and in every order of operations that proptest finds.

use std::sync::Arc;

use proptest::prelude::*;

use super::testing::{FakeStorage, Faults};
use super::tests::{append, open, payload, recovered, start, wait_until};
use super::*;

/// What must be true of a journal, told by whoever wrote to it.
#[derive(Default, Clone)]
struct Model {
    appended: Vec<Entry>,
    next: u64,
    /// Of the first so many it was asked that they be freed; of `freed` it was answered.
    freeing: usize,
    freed: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    number: u64,
    is_acknowledged: bool,
}

impl Model {
    fn append(&mut self, journal: &JournalHandle) -> Option<Appended> {
        let number = self.next;
        self.next += 1;
        let answer = append(journal, number);
        self.appended.push(Entry {
            number,
            is_acknowledged: answer.is_ok(),
        });
        answer.ok()
    }

    /// `position` is the end of the entry before `count`.
    fn free(&mut self, journal: &JournalHandle, count: usize, position: u64) -> Option<()> {
        self.freeing = count;
        journal.free_up_to(position).ok()?;
        self.freed = count;
        Some(())
    }

    /// All that was acknowledged and not freed is there in order, once; of the others any, in order, once.
    fn check(&self, found: &[Vec<u8>]) -> Vec<Entry> {
        let mut rest = found.iter().peekable();
        let mut kept = Vec::new();
        for (index, entry) in self.appended.iter().enumerate().skip(self.freed) {
            if rest
                .next_if(|next| **next == payload(entry.number))
                .is_some()
            {
                kept.push(Entry {
                    is_acknowledged: true,
                    ..*entry
                });
            } else {
                let may_be_gone = !entry.is_acknowledged || index < self.freeing;
                assert!(
                    may_be_gone,
                    "record {} was acknowledged and is lost",
                    entry.number
                );
            }
        }
        assert_eq!(
            rest.next(),
            None,
            "a record is doubled, out of order or was never appended"
        );
        kept
    }

    /// What opening found is what there is from now on.
    fn recover(&mut self, found: &[Vec<u8>]) {
        self.appended = self.check(found);
        (self.freeing, self.freed) = (0, 0);
    }
}

/// Appends, frees and closes; stops at the first thing that fails, as a process would that dies.
fn live(storage: &FakeStorage, model: &mut Model) -> Option<()> {
    let journal = open(storage).ok()?.start(Arc::new(())).ok()?;
    let mut ends = Vec::new();
    for round in 0..40 {
        ends.push(model.append(&journal)?.end);
        if round % 10 == 9 {
            let count = ends.len() - 3;
            model.free(&journal, count, ends[count - 1])?;
        }
    }
    journal.close().is_sealed.then_some(())
}

fn die_at_and_recover(die_at: u64, seed: u64, end: impl Fn(&FakeStorage) -> FakeStorage) {
    let storage = FakeStorage::new(seed);
    storage.set_faults(Faults {
        die_at_change: Some(die_at),
        ..Faults::default()
    });
    let mut model = Model::default();
    live(&storage, &mut model);
    let storage = end(&storage);
    let opened =
        open(&storage).unwrap_or_else(|error| panic!("dead at {die_at}, seed {seed}: {error}"));
    model.recover(&recovered(&opened));
    // It goes on as if nothing had happened, and survives another cut.
    let journal = opened.start(Arc::new(())).unwrap();
    for _ in 0..20 {
        model.append(&journal).unwrap();
    }
    let opened = open(&storage.cut_power());
    let opened =
        opened.unwrap_or_else(|error| panic!("again, dead at {die_at}, seed {seed}: {error}"));
    model.recover(&recovered(&opened));
}

#[test]
fn a_crash_at_every_operation_loses_nothing_acknowledged() {
    let whole = FakeStorage::new(0);
    live(&whole, &mut Model::default()).unwrap();
    assert!(whole.num_changes() > 100);
    for die_at in 1..=whole.num_changes() {
        die_at_and_recover(die_at, die_at, FakeStorage::cut_power);
        die_at_and_recover(die_at, die_at * 7919, FakeStorage::cut_power);
        die_at_and_recover(die_at, die_at, FakeStorage::kill);
    }
}

#[test]
fn a_power_cut_in_the_middle_of_recovery_loses_nothing() {
    let torn = FakeStorage::new(3);
    let mut model = Model::default();
    let journal = start(&torn);
    for _ in 0..20 {
        model.append(&journal).unwrap();
    }
    wait_until(|| journal.stats().num_segments >= 2);
    torn.set_faults(Faults {
        die_at_change: Some(torn.num_changes() + 1),
        ..Faults::default()
    });
    assert!(model.append(&journal).is_none());
    drop(journal);
    let torn = torn.cut_power();
    for die_at in 1..20 {
        let storage = torn.copy();
        storage.set_faults(Faults {
            die_at_change: Some(die_at),
            ..Faults::default()
        });
        if let Ok(opened) = open(&storage) {
            drop(opened.start(Arc::new(())));
        }
        let storage = storage.cut_power();
        let mut model = model.clone();
        let opened = open(&storage).unwrap();
        model.recover(&recovered(&opened));
        let journal = opened.start(Arc::new(())).unwrap();
        model.append(&journal).unwrap();
        model.check(&recovered(&open(&storage.cut_power()).unwrap()));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    AppendTogether(u8),
    FreeHalf,
    FreeAll,
    Close,
    Kill,
    CutPower,
    DieInAWhile(u8),
    FillDisk,
    EmptyDisk,
    WriteShort,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..20u8).prop_map(Step::Append),
        6 => (1..40u8).prop_map(Step::AppendTogether),
        3 => Just(Step::FreeHalf),
        1 => Just(Step::FreeAll),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => Just(Step::CutPower),
        2 => (1..30u8).prop_map(Step::DieInAWhile),
        1 => Just(Step::FillDisk),
        1 => Just(Step::EmptyDisk),
        1 => Just(Step::WriteShort),
    ]
}

struct Machine {
    storage: FakeStorage,
    journal: Option<JournalHandle>,
    model: Model,
    faults: Faults,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let storage = FakeStorage::new(seed);
        let journal = Some(start(&storage));
        Self {
            storage,
            journal,
            model: Model::default(),
            faults: Faults::default(),
        }
    }

    fn journal(&self) -> &JournalHandle {
        self.journal.as_ref().unwrap()
    }

    fn append_together(&mut self, count: u8) {
        let numbers = self.model.next..self.model.next + u64::from(count);
        self.model.next = numbers.end;
        let tickets: Vec<_> = numbers
            .map(|number| (number, self.journal().append(payload(number))))
            .collect();
        for (number, ticket) in tickets {
            let is_acknowledged = ticket.and_then(AppendTicket::wait).is_ok();
            self.model.appended.push(Entry {
                number,
                is_acknowledged,
            });
        }
    }

    /// What the drain does: read, and free what was read.
    fn free(&mut self, part: usize) {
        let mut reader = self.journal().reader(self.journal().stats().freed_up_to);
        let mut read = Vec::new();
        while let Ok(batch) = reader.next_batch(1000) {
            if batch.is_empty() {
                self.model.check(
                    &read
                        .iter()
                        .map(|record: &Record| record.payload.to_vec())
                        .collect::<Vec<_>>(),
                );
                break;
            }
            read.extend(batch);
        }
        read.truncate(read.len() / part);
        if let Some(last) = read.last() {
            let is_last = |entry: &Entry| payload(entry.number) == last.payload;
            let count = self.model.appended.iter().position(is_last).unwrap() + 1;
            let journal = self.journal().clone();
            self.model.free(&journal, count, last.end);
        }
    }

    fn end_life(&mut self, end: impl FnOnce(&FakeStorage) -> FakeStorage) {
        self.storage = end(&self.storage);
        self.faults = Faults::default();
        let opened = open(&self.storage).unwrap();
        self.model.recover(&recovered(&opened));
        self.journal = Some(opened.start(Arc::new(())).unwrap());
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(count) => (0..*count).for_each(|_| {
                let journal = self.journal().clone();
                self.model.append(&journal);
            }),
            Step::AppendTogether(count) => self.append_together(*count),
            Step::FreeHalf => self.free(2),
            Step::FreeAll => self.free(1),
            Step::Close => {
                self.journal().close();
                self.end_life(FakeStorage::kill);
            }
            Step::Kill => self.end_life(FakeStorage::kill),
            Step::CutPower => self.end_life(FakeStorage::cut_power),
            Step::DieInAWhile(changes) => {
                self.faults.die_at_change = Some(self.storage.num_changes() + u64::from(*changes));
                self.storage.set_faults(self.faults.clone());
                self.append_together(*changes);
                self.end_life(FakeStorage::cut_power);
            }
            Step::FillDisk => self.faults.bytes_max = Some(self.storage.bytes()),
            Step::EmptyDisk => self.faults.bytes_max = None,
            Step::WriteShort => self.faults.short_writes = true,
        }
        self.storage.set_faults(self.faults.clone());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_appends_frees_and_crashes_keeps_what_was_acknowledged(
        seed in any::<u64>(),
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let mut machine = Machine::new(seed);
        for step in &steps {
            machine.take(step);
        }
        machine.end_life(FakeStorage::cut_power);
    }
}
