//! When the slaves of a line are asked, and how long each is waited for.
//!
//! A slave that answers is asked at its times, and may take as long as any may. One that did not answer last is *silent*. Whoever
//! waits for it holds up the others, so beside some that answer it is asked between their times alone.
//!
//! **Invariants.**
//! - A silent slave is given up when the next one that answers is due. Two exceptions: one that was heard before may take what it
//!   took then, once it has waited for room in vain, so it costs no more than it did; and once in `MODBUS_PROBE_FULL_EVERY` it may
//!   take as long as any, so that one that is slower than the others leave room for is found again.
//! - All silent slaves together take at most one part in `MODBUS_SILENT_SHARE` of a line that others share with them.

use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::time::Instant;

use crate::config::{
    MODBUS_PROBE_FULL_EVERY, MODBUS_PROBE_MIN, MODBUS_PROBE_PATIENCE, MODBUS_RETRY_DELAY_MAX,
    MODBUS_RETRY_DELAY_MIN, MODBUS_SILENT_SHARE,
};
use crate::pipeline::circuit::delays;

/// How a slave is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// Once more over a new connection, when the one that there was breaks.
    Poll,
    /// A silent slave, while others wait: given up then, and its failures are not the endpoint's.
    Probe { until: Instant },
    /// Once: nobody knows what a device makes of the second.
    Write,
}

impl Asking {
    /// A slave that has answered a request is left time for the next one.
    pub fn note_answer(&mut self, taken: Duration) {
        if let Self::Probe { until } = self {
            *until = (*until).max(Instant::now() + usual(taken));
        }
    }
}

/// What there is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Ask { place: usize, asking: Asking },
    Wait { until: Instant },
    Nobody,
}

/// One slave's.
pub struct Turn {
    /// When it is to be asked next. The times that follow are whole intervals apart.
    pub due: Instant,
    interval: Duration,
    /// Polls in a row without an answer.
    num_failures: u32,
    delays: ExponentialBackoff,
    /// What it took of late, when it answered.
    answer_time: Option<Duration>,
    /// When it could take as long as any.
    asked_in_full: Instant,
}

impl Turn {
    #[must_use]
    pub fn new(due: Instant, interval: Duration) -> Self {
        Self {
            due,
            interval,
            num_failures: 0,
            delays: delays(MODBUS_RETRY_DELAY_MIN, MODBUS_RETRY_DELAY_MAX),
            answer_time: None,
            asked_in_full: due,
        }
    }

    /// Has it not answered when it was asked last?
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.num_failures > 0
    }

    #[must_use]
    pub fn num_failures(&self) -> u32 {
        self.num_failures
    }

    /// It is asked now, and is due again at the first of its times after that: those that were missed are not made up for.
    pub fn begin(&mut self, asking: Asking, now: Instant) {
        self.put_off(now);
        if asking == Asking::Poll {
            self.asked_in_full = now;
        }
    }

    pub fn note_answer(&mut self, taken: Duration) {
        self.num_failures = 0;
        self.delays = delays(MODBUS_RETRY_DELAY_MIN, MODBUS_RETRY_DELAY_MAX);
        // A single slow answer counts for a while.
        let of_late = self.answer_time.unwrap_or_default().mul_f64(0.9);
        self.answer_time = Some(of_late.max(taken));
    }

    /// A single reply may get lost: only after more than one it is asked less often.
    pub fn note_failure(&mut self, now: Instant) {
        self.num_failures = self.num_failures.saturating_add(1);
        if self.num_failures > 1 {
            let delay = self.delays.next().unwrap_or(MODBUS_RETRY_DELAY_MAX);
            self.put_off(now + delay);
        }
    }

    fn put_off(&mut self, until: Instant) {
        if let Some(late) = until.checked_duration_since(self.due) {
            let num_intervals = late.as_micros() / self.interval.as_micros().max(1) + 1;
            self.due += self.interval * u32::try_from(num_intervals).unwrap_or(u32::MAX);
        }
    }

    /// Somebody waits for it.
    pub fn hasten(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// How a silent slave may be asked now; none: it waits for more room before the next one that answers is due.
    fn probe(&self, next_due: Instant, reply_timeout: Duration, now: Instant) -> Option<Asking> {
        if now.saturating_duration_since(self.asked_in_full) >= MODBUS_PROBE_FULL_EVERY {
            return Some(Asking::Poll);
        }
        let room = next_due.saturating_duration_since(now);
        let waited = now.saturating_duration_since(self.due);
        let patience = waited.div_duration_f64(MODBUS_PROBE_PATIENCE).min(1.0);
        let wanted = match self.answer_time {
            Some(taken) => usual(taken),
            // Nobody knows how long it takes, so it waits for the widest room that there is: by asking for ever less.
            None => reply_timeout.mul_f64(1.0 - patience).max(MODBUS_PROBE_MIN),
        };
        let wanted = wanted.min(reply_timeout);
        let has_waited = patience >= 1.0 && self.answer_time.is_some();
        let until = now + room.max(wanted);
        (room >= wanted || has_waited).then_some(Asking::Probe { until })
    }
}

/// How long a slave may take that took so long before.
fn usual(taken: Duration) -> Duration {
    (taken * 2).max(MODBUS_PROBE_MIN)
}

/// What to do, for slaves by their places; silent ones that others share the line with have had their part of it until
/// `silent_from`.
pub fn next<'t>(
    turns: impl Iterator<Item = &'t Turn> + Clone,
    silent_from: Instant,
    reply_timeout: Duration,
    now: Instant,
) -> Next {
    let turns = turns.enumerate();
    let live = turns.clone().filter(|(_, turn)| !turn.is_silent());
    let silent = turns.filter(|(_, turn)| turn.is_silent());
    let Some((live, next)) = live.min_by_key(|(_, turn)| turn.due) else {
        // Nobody is held up.
        let first = silent.min_by_key(|(_, turn)| turn.due);
        return first.map_or(Next::Nobody, |(place, turn)| {
            poll(place, turn.due.max(silent_from), now)
        });
    };
    let may_be_asked = |turn: &Turn| turn.due.max(silent_from) <= now;
    let probes = silent.clone().filter(|(_, turn)| may_be_asked(turn));
    // One that waits for more room holds up none that needs less.
    let probes = probes.filter_map(|(place, turn)| {
        let asking = turn.probe(next.due, reply_timeout, now)?;
        Some((turn.due, place, asking))
    });
    if let Some((_, place, asking)) = probes.min_by_key(|(due, ..)| *due) {
        return Next::Ask { place, asking };
    }
    let later = silent.filter(|(_, turn)| !may_be_asked(turn));
    let later = later.map(|(_, turn)| turn.due.max(silent_from)).min();
    match poll(live, next.due, now) {
        Next::Wait { until } => Next::Wait {
            until: later.map_or(until, |later| later.min(until)),
        },
        ask => ask,
    }
}

fn poll(place: usize, due: Instant, now: Instant) -> Next {
    let asking = Asking::Poll;
    match due <= now {
        true => Next::Ask { place, asking },
        false => Next::Wait { until: due },
    }
}

/// When silent slaves may be asked again, of which one has just taken so long.
#[must_use]
pub fn silent_from(taken: Duration, now: Instant) -> Instant {
    now + taken * (MODBUS_SILENT_SHARE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_secs(1);
    /// Later than this, and somebody was waited for.
    const ON_TIME: Duration = Duration::from_millis(20);
    const QUICK: Option<Duration> = Some(Duration::from_millis(5));
    /// Longer than the others leave room for.
    const SLOW: Option<Duration> = Some(Duration::from_millis(300));
    const SILENT: Option<Duration> = None;

    struct Asked {
        place: usize,
        /// Since the line began.
        at: Duration,
        /// Of one that answered last.
        late: Duration,
        taken: Duration,
        is_answered: bool,
    }

    /// A line whose time is only counted: each of its slaves takes what it takes to answer, or does not.
    struct Line {
        begun: Instant,
        now: Instant,
        silent_from: Instant,
        turns: Vec<Turn>,
        answers: Vec<Option<Duration>>,
        asked: Vec<Asked>,
    }

    impl Line {
        /// All at one interval, and spread over it.
        fn of(answers: &[Option<Duration>]) -> Self {
            let now = Instant::now();
            let apart = INTERVAL / u32::try_from(answers.len()).unwrap();
            let due = (0..).map(|place| now + apart * place);
            Self {
                begun: now,
                now,
                silent_from: now,
                turns: due
                    .zip(answers)
                    .map(|(due, _)| Turn::new(due, INTERVAL))
                    .collect(),
                answers: answers.to_vec(),
                asked: Vec::new(),
            }
        }

        /// Goes on until so many seconds after its beginning.
        fn run(&mut self, seconds: u64) -> &mut Self {
            let end = self.begun + Duration::from_secs(seconds);
            while self.now < end {
                let turns = self.turns.iter();
                match next(turns, self.silent_from, REPLY_TIMEOUT, self.now) {
                    Next::Ask { place, asking } => self.ask(place, asking),
                    Next::Wait { until } => self.now = until,
                    Next::Nobody => panic!("there are slaves"),
                }
            }
            self
        }

        fn ask(&mut self, place: usize, asking: Asking) {
            let (turn, at) = (&mut self.turns[place], self.now);
            let limit = match asking {
                Asking::Probe { until } => (until - at).min(REPLY_TIMEOUT),
                Asking::Poll | Asking::Write => REPLY_TIMEOUT,
            };
            let answer = self.answers[place].filter(|taken| *taken <= limit);
            let taken = answer.unwrap_or(limit);
            let late = match turn.is_silent() {
                true => Duration::ZERO,
                false => at.saturating_duration_since(turn.due),
            };
            turn.begin(asking, at);
            self.now += taken;
            match answer {
                Some(_) => turn.note_answer(taken),
                None => {
                    turn.note_failure(self.now);
                    self.silent_from = silent_from(taken, self.now);
                }
            }
            self.asked.push(Asked {
                place,
                at: at - self.begun,
                late,
                taken,
                is_answered: answer.is_some(),
            });
        }

        /// When a slave answered first, from then on.
        fn answered(&self, place: usize, from_second: u64) -> Duration {
            let from = Duration::from_secs(from_second);
            let mut asked = self.asked.iter();
            let found = asked.find(|one| one.place == place && one.is_answered && one.at >= from);
            found.expect("it is found").at
        }

        /// The most that one that answers was late within these seconds.
        fn latest(&self, from_second: u64, to_second: u64) -> Duration {
            let within = Duration::from_secs(from_second)..Duration::from_secs(to_second);
            let asked = self.asked.iter();
            let asked = asked.filter(|one| one.is_answered && within.contains(&one.at));
            asked.map(|one| one.late).max().expect("somebody answers")
        }
    }

    fn ten_with(place: usize, answer: Option<Duration>) -> Line {
        let mut answers = [QUICK; 10];
        answers[place] = answer;
        Line::of(&answers)
    }

    #[test]
    fn the_dead_delay_nobody() {
        let mut line = ten_with(3, SILENT);
        line.run(60);
        line.answers[7] = SILENT;
        line.run(240);
        // Their first time-outs are when it is found out.
        assert!(line.latest(3, 60) <= ON_TIME && line.latest(63, 240) <= ON_TIME);
        for live in [0, 1, 2, 4, 5, 6, 8, 9] {
            let polls = line.asked.iter().filter(|one| one.place == live);
            let seconds: Vec<_> = polls.map(|one| one.at.as_secs()).collect();
            assert!(seconds.len() >= 240 - 4, "{live}: {seconds:?}");
        }
        for dead in [3, 7] {
            let asked = line
                .asked
                .iter()
                .filter(|one| one.place == dead && !one.is_answered);
            assert!(asked.count() > 4, "{dead}");
        }
    }

    #[test]
    fn who_comes_back_is_found_between_the_others() {
        let mut line = ten_with(3, SILENT);
        line.run(120);
        line.answers[3] = QUICK;
        line.run(290);
        // Waits grow to a minute, and up to another one by jitter.
        assert!(line.answered(3, 120) < Duration::from_secs(120 + 2 * 60 + 15));
        assert!(line.latest(3, 290) <= ON_TIME);
    }

    #[test]
    fn a_slow_one_that_missed_a_reply_is_asked_again_and_costs_no_more_than_before() {
        let mut line = ten_with(3, SLOW);
        line.run(60);
        line.answers[3] = SILENT;
        line.run(62);
        line.answers[3] = SLOW;
        line.run(90);
        assert!(line.answered(3, 62) < Duration::from_secs(62 + 15));
        assert!(line.latest(65, 90) <= 2 * SLOW.unwrap());
    }

    #[test]
    fn a_slow_one_that_was_never_heard_is_found_all_the_same() {
        let mut line = ten_with(3, SILENT);
        line.run(30);
        line.answers[3] = SLOW;
        line.run(500);
        let most = MODBUS_PROBE_FULL_EVERY + Duration::from_secs(2 * 60 + 15);
        assert!(line.answered(3, 30) < most);
    }

    #[test]
    fn one_that_waits_for_room_holds_up_none_that_has_it() {
        // There is none: those that answer take nearly all of the time.
        let mut line = Line::of(&[Some(Duration::from_millis(124)); 9]);
        line.turns.push(Turn::new(line.now, INTERVAL));
        line.answers.push(SILENT);
        line.run(30);
        line.answers[4] = SILENT;
        line.run(32);
        line.answers[4] = QUICK;
        line.run(100);
        assert!(line.answered(4, 32) < Duration::from_secs(60));
    }

    #[test]
    fn the_silent_take_a_tenth_whatever_their_number() {
        for num_live in [0, 1] {
            let mut answers = vec![QUICK; num_live];
            answers.resize(40, SILENT);
            let mut line = Line::of(&answers);
            line.run(100).run(1100);
            let asked = line
                .asked
                .iter()
                .filter(|one| one.at >= Duration::from_secs(100));
            let silent: Vec<_> = asked.filter(|one| !one.is_answered).collect();
            let taken: Duration = silent.iter().map(|one| one.taken).sum();
            let all = num_live..40;
            assert!(
                all.into_iter()
                    .all(|place| silent.iter().any(|one| one.place == place))
            );
            assert!(taken <= Duration::from_secs(101), "{taken:?}");
            assert!(taken >= Duration::from_secs(20), "{taken:?}");
        }
    }

    #[test]
    fn who_is_waited_for_is_asked_before_it_is_due() {
        let mut line = ten_with(3, QUICK);
        line.run(10);
        line.answers[3] = SILENT;
        line.run(40);
        line.answers[3] = QUICK;
        line.turns[3].due = line.now + Duration::from_secs(1000);
        line.silent_from = line.now;
        line.run(45);
        let since = Duration::from_secs(40);
        assert!(
            !line
                .asked
                .iter()
                .any(|one| one.place == 3 && one.at >= since)
        );
        line.turns[3].hasten(line.now);
        line.run(50);
        assert!(line.answered(3, 45) < Duration::from_secs(47));
    }

    #[test]
    fn times_that_were_missed_are_not_made_up_for() {
        let now = Instant::now();
        let mut turn = Turn::new(now, INTERVAL);
        turn.begin(Asking::Poll, now + INTERVAL * 7 / 2);
        assert_eq!(turn.due, now + INTERVAL * 4);
        turn.begin(Asking::Poll, now + INTERVAL * 4);
        assert_eq!(turn.due, now + INTERVAL * 5);
        turn.note_failure(now + INTERVAL * 4);
        assert_eq!(turn.due, now + INTERVAL * 5);
    }
}
