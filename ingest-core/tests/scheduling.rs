//! A process that goes first does so only while it is light: one that spins is put back among the others, and goes first again when it rests.
//! By itself, for what is scheduled is the whole process.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hse_ingest_core::scheduling::be_prompt;

/// Many times what it takes: a second of little.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of `stat` in `proc(5)`, counted from the state behind the name.
const POLICY_FIELD: usize = 38;
const SCHED_OTHER: &str = "0";
const SCHED_RR: &str = "2";

/// The policies of all threads but of the ones that end meanwhile.
fn policies() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let (_, fields) = stat.rsplit_once(')')?;
            fields
                .split_whitespace()
                .nth(POLICY_FIELD)
                .map(str::to_owned)
        })
        .collect()
}

fn wait_until_all_are(policy: &str) {
    let begun = Instant::now();
    while policies().iter().any(|one| one != policy) {
        assert!(
            begun.elapsed() < PATIENCE,
            "{:?} instead of {policy}",
            policies()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_spins_is_put_back_among_the_others_until_it_rests() {
    // Of this thread, not of those of the test harness, which go on as they are.
    be_prompt().unwrap();
    if !goes_first_within_patience() {
        return;
    }
    let stop = AtomicBool::new(false);
    let spinners = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        for _ in 0..spinners {
            scope.spawn(|| while !stop.load(Ordering::Relaxed) {});
        }
        wait_until_all_are(SCHED_OTHER);
        stop.store(true, Ordering::Relaxed);
    });
    wait_until_all_are(SCHED_RR);
}

/// Whether the system gives leave; then it must come.
fn goes_first_within_patience() -> bool {
    let watched = fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .any(|thread| {
            fs::read_to_string(thread.path().join("comm"))
                .is_ok_and(|name| name.trim() == "scheduling")
        });
    if watched {
        wait_until_all_are(SCHED_RR);
    } else {
        eprintln!("skipped: this system lets nobody go first, see RLIMIT_RTPRIO");
    }
    watched
}
