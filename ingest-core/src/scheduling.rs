//! How soon a thread of ours gets a processor that others keep busy.
//!
//! Linux lets a thread that wakes take the processor from one that runs when it asks for a shorter slice than that one (EEVDF, since
//! 6.12; earlier kernels ignore it). Our threads wake often and work briefly: to read a frame, to sync a group, to say an ACK. What
//! they share the machine with, a COPY or the hashing of passwords, works for milliseconds on end, and each ACK would wait for that
//! several times over. Nobody's share of the processors changes by it.

use std::io;

/// The shortest slice that the kernel gives. Who works for longer gets the next one, too, when it is due.
const SLICE_NS: u64 = 100_000;

/// Of what is passed to the kernel, which takes shorter and longer ones, of other versions of itself.
const ATTRIBUTES_BYTES: u32 = 48;
const _: () = assert!(size_of::<libc::sched_attr>() == ATTRIBUTES_BYTES as usize);

/// Asks for short slices for this thread and for all that it starts from now on.
///
/// # Errors
/// What the system says; a kernel that knows no slices of one's own says nothing, and changes nothing.
pub fn ask_for_short_slices() -> io::Result<()> {
    let mut attributes = attributes()?;
    // A thread under a real-time policy was made one by whoever runs it, and has no slices of this kind.
    if attributes.sched_policy == libc::SCHED_OTHER.cast_unsigned() {
        attributes.sched_runtime = SLICE_NS;
        set_attributes(&attributes)?;
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "no crate wraps this call; the kernel writes no more than the size that it is told"
)]
fn attributes() -> io::Result<libc::sched_attr> {
    let mut attributes = libc::sched_attr {
        size: ATTRIBUTES_BYTES,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the pointer is to a whole `sched_attr` that lives for the call, of the size that is passed.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            0,
            &raw mut attributes,
            ATTRIBUTES_BYTES,
            0,
        )
    };
    if outcome == 0 {
        Ok(attributes)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[expect(
    unsafe_code,
    reason = "no crate wraps this call; the kernel only reads what it is given"
)]
fn set_attributes(attributes: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: the pointer is to a whole `sched_attr` that lives for the call and says its own size.
    let outcome = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_started_have_short_slices_and_keep_their_niceness() {
        let before = attributes().unwrap();
        let of_child = std::thread::spawn(|| {
            ask_for_short_slices().unwrap();
            std::thread::spawn(|| attributes().unwrap()).join().unwrap()
        })
        .join()
        .unwrap();
        assert_eq!(of_child.sched_nice, before.sched_nice);
        assert_eq!(of_child.sched_policy, before.sched_policy);
        // A kernel that knows no slices of one's own says 0 of everybody.
        if before.sched_runtime != 0 {
            assert!(before.sched_runtime > SLICE_NS);
            assert_eq!(of_child.sched_runtime, SLICE_NS);
        }
    }
}
