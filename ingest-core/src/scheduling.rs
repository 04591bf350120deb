//! How soon a thread of ours gets a processor that others keep busy.
//!
//! Our threads wake often and work briefly: to read a frame, to sync a group, to say an ACK. What they share the machine with, a COPY
//! or the hashing of passwords, works for milliseconds on end, and each ACK would wait for that several times over. So they
//!
//! - ask for short slices: who asks for a shorter one than the thread that runs takes the processor from it (EEVDF, Linux since 6.12;
//!   earlier kernels ignore it). It needs no leave and takes nobody's share, and helps some;
//! - go first, under a real-time policy, where the system gives leave to and as long as this process is light. Who spins, or is
//!   sent more than one can take, must not take the machine from its database: [`Watch`] looks ten times a second.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tracing::{debug, info};

mod attributes;

use attributes::Attributes;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of all processors: less than one of two, so that one thread that spins is too much for a small machine.
const LIGHT_SHARE_MAX: f64 = 0.4;
/// So many looks in a row have found the process light before it goes first: a second.
const LIGHT_LOOKS: u32 = 10;

/// Lets all threads of this process get a processor as soon as they can have it, from now to its end; the caller has started none yet.
///
/// # Errors
/// What the system says to the wish for short slices; a kernel that knows none says nothing, and changes nothing. That one
/// may not go first is no error.
pub fn be_prompt() -> io::Result<()> {
    let found = Attributes::of_caller()?;
    // Another policy was given by whoever runs this, who knows why.
    if !found.is_usual() {
        return Ok(());
    }
    let usual = found.with_short_slices();
    usual.give_to_caller()?;
    let first = usual.realtime();
    if let Err(refusal) = first.give_to_caller() {
        info!(%refusal, "threads have short slices, and may not go first: see RLIMIT_RTPRIO");
        return Ok(());
    }
    usual.give_to_caller()?;
    thread::Builder::new()
        .name("scheduling".to_owned())
        .spawn(move || watch(usual, first))?;
    info!("threads go first while this process is light");
    Ok(())
}

fn watch(usual: Attributes, first: Attributes) {
    let mut watch = Watch::new(thread::available_parallelism().map_or(1, usize::from));
    let mut looked = (Instant::now(), processor_time());
    let mut goes_first = false;
    loop {
        thread::sleep(LOOK_EVERY);
        let (then, used) = std::mem::replace(&mut looked, (Instant::now(), processor_time()));
        let wanted = watch.goes_first(looked.1.saturating_sub(used), looked.0 - then);
        if wanted != goes_first {
            debug!(goes_first = wanted, "scheduling changes");
            goes_first = wanted;
        }
        // All of them at every look: one that was started while this changed has what its parent had.
        give_to_all(if goes_first { &first } else { &usual });
    }
}

/// A thread that has ended meanwhile is none to give anything to, and what the system refuses now it is asked for again.
fn give_to_all(attributes: &Attributes) {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    for thread in threads.flatten() {
        let number = thread.file_name();
        if let Some(Ok(number)) = number.to_str().map(str::parse) {
            let _ = attributes.give_to(number);
        }
    }
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime)
        .try_into()
        .unwrap_or_default()
}

/// Whether a process is light: it has used a small part of the processors for some time.
struct Watch {
    processors: f64,
    light_looks: u32,
}

impl Watch {
    fn new(num_processors: usize) -> Self {
        Self {
            processors: f64::from(u32::try_from(num_processors).unwrap_or(u32::MAX)),
            light_looks: 0,
        }
    }

    /// Whether its threads go first after a look that found it to have `used` so much of a processor within `elapsed`.
    fn goes_first(&mut self, used: Duration, elapsed: Duration) -> bool {
        let light_max = elapsed.mul_f64(self.processors * LIGHT_SHARE_MAX);
        self.light_looks = if used > light_max {
            0
        } else {
            LIGHT_LOOKS.min(self.light_looks + 1)
        };
        self.light_looks == LIGHT_LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_first_after_a_second_of_little_and_no_more_at_the_first_look_that_finds_it_spinning()
    {
        let mut watch = Watch::new(2);
        let mut looked = |used_ms| watch.goes_first(Duration::from_millis(used_ms), LOOK_EVERY);
        assert!((1..LIGHT_LOOKS).all(|_| !looked(80)));
        assert!(looked(80));
        assert!(!looked(81));
        assert!((1..LIGHT_LOOKS).all(|_| !looked(0)));
        assert!(looked(0));
    }

    #[test]
    fn what_is_light_grows_with_the_machine_and_with_the_time_between_looks() {
        let at_once = |processors, used_ms, elapsed_ms| {
            let mut watch = Watch::new(processors);
            let mut look = || {
                watch.goes_first(
                    Duration::from_millis(used_ms),
                    Duration::from_millis(elapsed_ms),
                )
            };
            (0..LIGHT_LOOKS).fold(false, |_, _| look())
        };
        assert!(at_once(1, 40, 100) && !at_once(1, 41, 100));
        assert!(at_once(16, 640, 100) && !at_once(16, 641, 100));
        assert!(at_once(2, 160, 200));
    }
}
