//! A process that goes first does so only while it is light: one that spins is put back among the others, and goes first again when it rests.
//! By itself, for what is scheduled is the whole process.

use std::fs;
use std::hint;
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

/// What a file of each thread says, but for those that end meanwhile.
fn of_threads(file: &str) -> impl Iterator<Item = String> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    threads.filter_map(move |thread| fs::read_to_string(thread.ok()?.path().join(file)).ok())
}

fn policies() -> Vec<String> {
    of_threads("stat")
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
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        wait_until_all_are(SCHED_OTHER);
        stop.store(true, Ordering::Relaxed);
    });
    wait_until_all_are(SCHED_RR);
}

/// Whether the system gives leave; then it must come.
fn goes_first_within_patience() -> bool {
    let watched = of_threads("comm").any(|name| name.trim() == "scheduling");
    if watched {
        wait_until_all_are(SCHED_RR);
    } else {
        eprintln!("skipped: this system lets nobody go first, see RLIMIT_RTPRIO");
    }
    watched
}
