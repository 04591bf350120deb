//! One thread: its connections, its epoll instance, its schedule.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use hse_ingest_core::event::Event;
use rustix::event::epoll;
use rustix::time::Timespec;

use super::schedule::Schedule;
use super::session::{Desk, Session};
use super::tally::Tally;
use super::{Pace, Plan};
use crate::devices::Device;
use crate::error::BenchError;

const EVENTS_PER_WAIT: usize = 1024;
const READ_BYTES: usize = 64 << 10;
/// How often connections that are down, held off or kept back by the gate are looked after.
const LOOK_AFTER_EVERY: Duration = Duration::from_millis(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(120);

pub struct Worker {
    plan: Plan,
    sessions: Vec<Session>,
    epoll: OwnedFd,
    schedule: Option<Schedule>,
    tally: Tally,
    window: std::ops::Range<Instant>,
    sends_until: Instant,
    events: Vec<Event<'static>>,
    scratch: Vec<u8>,
    newly_acked: u64,
}

impl Worker {
    /// Opens all connections and waits until the core has welcomed every device.
    ///
    /// # Errors
    /// The core is not there, or refuses one.
    pub fn connect(plan: Plan, share: Vec<(usize, Device)>) -> Result<Self, BenchError> {
        let now = Instant::now();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| BenchError::io("epoll")(e.into()))?;
        let sessions = share
            .into_iter()
            .map(|(index, device)| Session::new(index, device, &plan, now))
            .collect();
        let mut worker = Self {
            plan,
            sessions,
            epoll,
            schedule: None,
            tally: Tally::new()?,
            window: now..now,
            sends_until: now,
            events: Vec::new(),
            scratch: vec![0; READ_BYTES],
            newly_acked: 0,
        };
        for index in 0..worker.sessions.len() {
            worker
                .connect_session(index)
                .map_err(BenchError::io("connecting"))?;
            // So that the core's answers do not pile up while ten thousand others connect.
            worker.turn(Duration::ZERO)?;
        }
        let too_late = now + CONNECT_WITHIN;
        while !worker.sessions.iter().all(Session::is_ready) {
            if Instant::now() > too_late {
                return Err(BenchError::TooLate {
                    what: "every device is welcome",
                    seconds: CONNECT_WITHIN.as_secs(),
                });
            }
            worker.turn(LOOK_AFTER_EVERY)?;
            worker.look_after()?;
        }
        worker.tally.reconnects = 0;
        Ok(worker)
    }

    /// Sends for as long as planned, then waits for the last ACKs.
    ///
    /// # Errors
    /// The core refuses a device or breaks the protocol. A lost connection is no error: it is opened again.
    pub fn run(mut self) -> Result<Tally, BenchError> {
        set_timer_slack();
        let start = Instant::now();
        self.window = start + self.plan.warm_up..start + self.plan.warm_up + self.plan.measured;
        self.sends_until = self.window.end;
        if let Pace::Open { mean_gap } = self.plan.pace {
            let seed = u64::try_from(self.sessions.len()).unwrap_or(1);
            self.schedule = Some(Schedule::new(self.sessions.len(), mean_gap, start, seed));
        }
        let mut looked_after = start;
        loop {
            let now = Instant::now();
            if now >= self.sends_until
                && (now >= self.sends_until + self.plan.grace
                    || !self.sessions.iter().any(Session::has_pending))
            {
                break;
            }
            self.send_due(now)?;
            if now >= looked_after + LOOK_AFTER_EVERY {
                self.look_after()?;
                looked_after = now;
            }
            let next_due = self
                .schedule
                .as_ref()
                .and_then(Schedule::next_due)
                .filter(|_| now < self.sends_until);
            let next = next_due.map_or(now + LOOK_AFTER_EVERY, |due| {
                due.min(now + LOOK_AFTER_EVERY)
            });
            self.turn(next.saturating_duration_since(Instant::now()))?;
        }
        self.tally.events_unanswered = self.sessions.iter().map(Session::num_pending_events).sum();
        self.tally.window = Some(self.window);
        Ok(self.tally)
    }

    fn send_due(&mut self, now: Instant) -> Result<(), BenchError> {
        if now >= self.sends_until {
            return Ok(());
        }
        while let Some((intended, index)) = self
            .schedule
            .as_mut()
            .and_then(|schedule| schedule.take_due(now))
        {
            if let Some(session) = self.sessions.get_mut(index) {
                session.intend(intended);
            }
            self.send_from(index)?;
        }
        Ok(())
    }

    /// Sends what the connection has waiting; in the closed loop, fills its window.
    fn send_from(&mut self, index: usize) -> Result<(), BenchError> {
        let now = Instant::now();
        let is_closed_loop = self.schedule.is_none() && now < self.sends_until;
        let may_send = is_closed_loop && self.plan.gate.as_ref().is_none_or(|gate| gate.is_open());
        let events_per_frame = self.plan.events_per_frame;
        let sent = self.with_session(index, now, |session, desk| {
            while may_send && session.has_room_for_more() {
                session.intend(now);
            }
            session.send_waiting(events_per_frame, desk)
        });
        self.lose_on_error(index, sent)
    }

    /// Reconnects, resends, and starts again what the gate had stopped.
    fn look_after(&mut self) -> Result<(), BenchError> {
        let now = Instant::now();
        for index in 0..self.sessions.len() {
            let Some(session) = self.sessions.get(index) else {
                continue;
            };
            if session.must_connect(now) {
                self.tally.reconnects += 1;
                if let Err(error) = self.connect_session(index) {
                    self.tally.count_error(&error.kind().to_string());
                    self.lose(index);
                }
            } else if session.must_resend(now) {
                let resent = self.with_session(index, now, Session::resend);
                self.lose_on_error(index, resent)?;
                self.send_from(index)?;
            } else if self.schedule.is_none() && session.has_room() && now < self.sends_until {
                self.send_from(index)?;
            }
        }
        Ok(())
    }

    /// Waits for sockets, at most this long, and handles what they have.
    fn turn(&mut self, timeout: Duration) -> Result<(), BenchError> {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let mut ready = Vec::with_capacity(EVENTS_PER_WAIT);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut ready),
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(BenchError::io("epoll")(error.into())),
        }
        for event in ready {
            let (flags, token) = (event.flags, event.data.u64());
            let Ok(index) = usize::try_from(token) else {
                continue;
            };
            self.handle(index, flags)?;
        }
        if let (Some(gate), true) = (&self.plan.gate, self.newly_acked > 0) {
            gate.count_acked(self.newly_acked);
        }
        self.newly_acked = 0;
        Ok(())
    }

    fn handle(&mut self, index: usize, flags: epoll::EventFlags) -> Result<(), BenchError> {
        let Some(session) = self.sessions.get_mut(index) else {
            return Ok(());
        };
        let is_alive = session.read(&mut self.scratch);
        let now = Instant::now();
        self.with_session(index, now, Session::take_frames)?;
        match is_alive {
            Ok(true) => {}
            Ok(false) => {
                self.tally.count_error("closed");
                self.lose(index);
                return Ok(());
            }
            Err(error) => return self.lose_on_error(index, Err(error)),
        }
        if flags.contains(epoll::EventFlags::OUT) {
            let flushed = self.with_session(index, now, |session, _| session.flush());
            self.lose_on_error(index, flushed)?;
        }
        self.send_from(index)
    }

    fn connect_session(&mut self, index: usize) -> std::io::Result<()> {
        let Some(session) = self.sessions.get_mut(index) else {
            return Ok(());
        };
        session.connect(self.plan.address)?;
        if let Some(stream) = &session.stream {
            let token = epoll::EventData::new_u64(u64::try_from(index).unwrap_or(u64::MAX));
            let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(self.epoll.as_fd(), stream, token, interest)?;
        }
        Ok(())
    }

    fn lose_on_error(&mut self, index: usize, done: std::io::Result<()>) -> Result<(), BenchError> {
        if let Err(error) = done {
            self.tally.count_error(&error.kind().to_string());
            self.lose(index);
        }
        Ok(())
    }

    /// Closing the socket takes it out of the epoll instance.
    fn lose(&mut self, index: usize) {
        if let Some(session) = self.sessions.get_mut(index) {
            session.drop_connection(Instant::now());
        }
    }

    fn with_session<T: Default, E>(
        &mut self,
        index: usize,
        now: Instant,
        work: impl FnOnce(&mut Session, &mut Desk<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(session) = self.sessions.get_mut(index) else {
            return Ok(T::default());
        };
        let mut desk = Desk {
            tally: &mut self.tally,
            events: &mut self.events,
            window: self.window.clone(),
            now,
            newly_acked: &mut self.newly_acked,
        };
        work(session, &mut desk)
    }
}

/// The kernel rounds time-outs up by 50 microseconds unless told not to.
fn set_timer_slack() {
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        eprintln!("hse-loadgen: sends may be 50 us late: {error}");
    }
}
