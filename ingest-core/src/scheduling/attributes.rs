//! What Linux knows of how a thread is scheduled, read and set: the calls that no crate wraps.

use std::io;

/// The shortest slice that the kernel gives. Who works for longer gets the next one, too, when it is due.
const SLICE_NS: u64 = 100_000;
/// Above every thread without a real-time policy, and below every other one with it.
const LOWEST_REALTIME_PRIORITY: u32 = 1;
/// Of what is passed to the kernel, which takes shorter and longer ones, of other versions of itself.
const SIZE_BYTES: u32 = 48;
const _: () = assert!(size_of::<libc::sched_attr>() == SIZE_BYTES as usize);

/// How a thread is scheduled.
#[derive(Clone, Copy)]
pub struct Attributes(libc::sched_attr);

impl Attributes {
    /// How the calling thread is scheduled.
    #[expect(
        unsafe_code,
        reason = "no crate wraps this call; the kernel writes no more than the size that it is told"
    )]
    pub fn of_caller() -> io::Result<Self> {
        let mut read = libc::sched_attr {
            size: SIZE_BYTES,
            sched_policy: 0,
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: 0,
            sched_runtime: 0,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: the pointer is to a whole `sched_attr` that lives for the call, of the size that is passed.
        let outcome =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut read, SIZE_BYTES, 0) };
        answer(outcome).map(|()| Self(read))
    }

    /// Whether nobody has given the thread another policy than everybody's.
    pub fn is_usual(&self) -> bool {
        self.0.sched_policy == libc::SCHED_OTHER.cast_unsigned()
    }

    /// The same with the shortest slice.
    pub fn with_short_slices(self) -> Self {
        Self(libc::sched_attr {
            sched_runtime: SLICE_NS,
            ..self.0
        })
    }

    /// The same with the lowest real-time priority, in turn with others of the same.
    pub fn realtime(self) -> Self {
        Self(libc::sched_attr {
            sched_policy: libc::SCHED_RR.cast_unsigned(),
            sched_priority: LOWEST_REALTIME_PRIORITY,
            sched_runtime: 0,
            ..self.0
        })
    }

    /// Schedules the calling thread, and what it starts from now on, in this way.
    pub fn give_to_caller(&self) -> io::Result<()> {
        self.give_to(0)
    }

    /// Schedules a thread of this process, and what it starts from now on, in this way.
    #[expect(
        unsafe_code,
        reason = "no crate wraps this call; the kernel only reads what it is given"
    )]
    pub fn give_to(&self, thread: libc::pid_t) -> io::Result<()> {
        // SAFETY: the pointer is to a whole `sched_attr` that lives for the call and says its own size.
        let outcome =
            unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const self.0, 0) };
        answer(outcome)
    }
}

fn answer(outcome: libc::c_long) -> io::Result<()> {
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_child<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(look).join().unwrap()
    }

    #[test]
    fn threads_that_are_started_have_short_slices_and_keep_their_niceness() {
        let before = Attributes::of_caller().unwrap();
        let of_child = in_child(move || {
            before.with_short_slices().give_to_caller().unwrap();
            in_child(|| Attributes::of_caller().unwrap())
        });
        assert_eq!(of_child.0.sched_nice, before.0.sched_nice);
        assert_eq!(of_child.0.sched_policy, before.0.sched_policy);
        // A kernel that knows no slices of one's own says 0 of everybody.
        if before.0.sched_runtime != 0 {
            assert!(before.0.sched_runtime > SLICE_NS);
            assert_eq!(of_child.0.sched_runtime, SLICE_NS);
        }
    }

    #[test]
    fn who_may_be_real_time_becomes_it_and_gets_back_to_what_it_was() {
        let before = Attributes::of_caller().unwrap().with_short_slices();
        let (during, after) = in_child(move || {
            if let Err(refusal) = before.realtime().give_to_caller() {
                assert_eq!(refusal.kind(), io::ErrorKind::PermissionDenied);
                return (None, before);
            }
            let during = Attributes::of_caller().unwrap();
            before.give_to_caller().unwrap();
            (Some(during), Attributes::of_caller().unwrap())
        });
        assert!(during.is_none_or(|during| !during.is_usual() && during.0.sched_priority == 1));
        assert!(after.is_usual());
        assert_eq!(after.0.sched_nice, before.0.sched_nice);
    }
}
