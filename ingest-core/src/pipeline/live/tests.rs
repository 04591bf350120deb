use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::event::{Event, RejectCode};
use crate::frame::encode_event;
use crate::pipeline::entry::{Entry, Rejected, Source};

const DEVICE: Uuid = Uuid::from_u128(1);
const CHILD: Uuid = Uuid::from_u128(2);
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7);

fn event(event_type: &str, value: f64) -> Event<'_> {
    Event {
        time_us: Some(5),
        event_type,
        value: Some(value),
        unit: None,
        metadata: None,
        device_id: None,
    }
}

fn entry(device_id: Uuid, events: &[Event<'_>], rejected: &[u32]) -> Bytes {
    let mut encoded = Vec::new();
    for event in events {
        encode_event(event, &mut encoded);
    }
    let rejected = rejected.iter().map(|index| Rejected {
        index: *index,
        code: RejectCode::BadType,
    });
    let entry = Entry {
        source: Source::Hdp,
        device_id,
        epoch: 1,
        first_seq: 1,
        received_us: 9,
        num_events: u32::try_from(events.len()).unwrap(),
        rejected: rejected.collect(),
        events: &encoded,
    };
    entry.encode().into()
}

fn own() -> Outline {
    Outline::Own {
        newest_offset: Some(0),
    }
}

fn offer(feed: &LiveFeed, values: &[f64]) {
    let events: Vec<_> = values.iter().map(|value| event("t", *value)).collect();
    let mut last = Vec::new();
    encode_event(&events[events.len() - 1], &mut last);
    let payload = entry(DEVICE, &events, &[]);
    let newest_offset = Some(payload.len() - last.len());
    feed.events(&payload, Outline::Own { newest_offset });
}

fn feed() -> Arc<LiveFeed> {
    Arc::new(LiveFeed::new(1 << 20, None))
}

fn everything() -> Filter {
    Filter {
        with_connections: true,
        ..Filter::default()
    }
}

/// What a reader gets now, in words.
fn heard(reader: &mut Subscription) -> Vec<String> {
    let mut said = Vec::new();
    while let Some(delivery) = reader.try_next() {
        if delivery.num_missed > 0 {
            said.push(format!("missed {}", delivery.num_missed));
        }
        for (number, item) in delivery.items(reader.filter()) {
            said.push(match item {
                LiveItem::Event(event) => {
                    let value = event.event.value.unwrap_or_default();
                    format!("{number}: {} {value}", event.event.event_type)
                }
                LiveItem::Connected(connection) => {
                    format!("{number}: connected {}", connection.protocol.as_str())
                }
                LiveItem::Disconnected { .. } => format!("{number}: disconnected"),
            });
        }
    }
    said
}

#[test]
fn a_reader_hears_what_comes_after_it_began_in_order() {
    let feed = feed();
    offer(&feed, &[1.0]);
    let mut reader = feed.hub.subscribe(everything(), None);
    let presence = feed.connected(DEVICE, Protocol::WebSocket, ADDRESS);
    assert_eq!(feed.num_connected(), 1);
    offer(&feed, &[2.0, 3.0]);
    drop(presence);
    assert_eq!(feed.num_connected(), 0);
    assert_eq!(
        heard(&mut reader),
        [
            "2: connected websocket",
            "3: t 2",
            "4: t 3",
            "5: disconnected"
        ]
    );
    assert_eq!(heard(&mut reader), [""; 0]);
}

#[test]
fn a_rejected_event_takes_its_number_and_is_not_heard() {
    let feed = feed();
    let mut reader = feed.hub.subscribe(everything(), None);
    let events = [event("a", 1.0), event("", 2.0), event("c", 3.0)];
    feed.events(&entry(DEVICE, &events, &[1]), own());
    assert_eq!(heard(&mut reader), ["1: a 1", "3: c 3"]);
}

#[test]
fn a_filter_takes_devices_types_and_connections_as_asked() {
    let feed = feed();
    let of_child = Filter {
        device_ids: Some(HashSet::from_iter([CHILD])),
        ..everything()
    };
    let of_type = Filter {
        event_types: Some(HashSet::from(["b".to_owned()])),
        ..Filter::default()
    };
    let mut children = feed.hub.subscribe(of_child, None);
    let mut types = feed.hub.subscribe(of_type, None);
    let presence = feed.connected(DEVICE, Protocol::Hdp, ADDRESS);
    let childs = Event {
        device_id: Some(CHILD),
        ..event("b", 2.0)
    };
    feed.events(
        &entry(DEVICE, &[event("a", 1.0), childs], &[]),
        Outline::Mixed,
    );
    offer(&feed, &[3.0]);
    drop(presence);
    assert_eq!(heard(&mut children), ["3: b 2"]);
    assert_eq!(heard(&mut types), ["3: b 2"]);
}

#[test]
fn a_reader_comes_back_for_what_followed_its_position() {
    let feed = feed();
    let mut reader = feed.hub.subscribe(everything(), None);
    offer(&feed, &[1.0, 2.0, 3.0]);
    assert_eq!(heard(&mut reader), ["1: t 1", "2: t 2", "3: t 3"]);
    drop(reader);
    offer(&feed, &[4.0]);
    let position = Position {
        run: feed.hub.run(),
        number: 2,
    };
    let mut reader = feed.hub.subscribe(everything(), Some(position));
    assert_eq!(heard(&mut reader), ["3: t 3", "4: t 4"]);
}

#[test]
fn a_position_of_another_run_begins_with_all_of_this_one_and_says_that_something_is_missing() {
    let feed = feed();
    let _keeps_recording = feed.hub.subscribe(everything(), None);
    offer(&feed, &[1.0]);
    let of_another = Position {
        run: Uuid::from_u128(77),
        number: 500,
    };
    let not_given_yet = Position {
        run: feed.hub.run(),
        number: 2,
    };
    for position in [of_another, not_given_yet] {
        let mut reader = feed.hub.subscribe(everything(), Some(position));
        assert_eq!(heard(&mut reader), ["missed 1", "1: t 1"]);
    }
}

#[test]
fn what_nobody_was_there_for_is_counted_and_not_kept() {
    let feed = feed();
    let reader = feed.hub.subscribe(everything(), None);
    offer(&feed, &[1.0]);
    drop(reader);
    feed.hub
        .stop_recording_for_nobody(Duration::from_secs(3600));
    assert_eq!(feed.hub.positions(), Positions { first: 1, last: 1 });
    feed.hub.stop_recording_for_nobody(Duration::ZERO);
    offer(&feed, &[2.0, 3.0]);
    assert_eq!(feed.hub.positions(), Positions { first: 4, last: 3 });
    let position = Position {
        run: feed.hub.run(),
        number: 1,
    };
    let mut reader = feed.hub.subscribe(everything(), Some(position));
    offer(&feed, &[4.0]);
    assert_eq!(heard(&mut reader), ["missed 2", "4: t 4"]);
}

#[test]
fn a_slow_reader_is_told_how_many_it_missed_and_a_swift_one_misses_none() {
    let feed = feed();
    let mut slow = feed.hub.subscribe(everything(), None);
    let mut swift = feed.hub.subscribe(everything(), None);
    let num_offers: u32 = 20_000;
    let mut num_heard = 0;
    for number in 0..num_offers {
        offer(&feed, &[f64::from(number)]);
        num_heard += heard(&mut swift).len();
    }
    assert_eq!(num_heard, num_offers as usize);
    let late = slow.try_next().unwrap();
    assert!(late.num_missed > 0);
    let num_late = late.items(slow.filter()).count() + heard(&mut slow).len();
    assert_eq!(late.num_missed + num_late as u64, u64::from(num_offers));
}

#[test]
fn ten_thousand_readers_that_do_not_read_cost_no_more_than_their_places() {
    let ring_bytes_max = 16 << 10;
    let feed = Arc::new(LiveFeed::new(ring_bytes_max, None));
    let mut idle: Vec<_> = (0..10_000)
        .map(|_| feed.hub.subscribe(everything(), None))
        .collect();
    let mut swift = feed.hub.subscribe(everything(), None);
    let num_offers: u32 = 1000;
    let mut num_heard = 0;
    for number in 0..num_offers {
        offer(&feed, &[f64::from(number)]);
        num_heard += heard(&mut swift).len();
    }
    assert_eq!(num_heard, num_offers as usize);
    assert_eq!(feed.hub.num_readers(), 10_001);
    // What they have not read is held once, and no longer than there is room.
    let positions = feed.hub.positions();
    let num_kept = positions.last + 1 - positions.first;
    assert!((1..100).contains(&num_kept), "{num_kept}");
    for reader in &mut idle {
        let late = reader.try_next().unwrap();
        assert_eq!(late.num_missed, u64::from(num_offers) - num_kept);
        assert_eq!(late.items(reader.filter()).count() as u64, num_kept);
        assert!(reader.try_next().is_none());
    }
}

#[test]
fn a_reader_takes_out_so_many_bytes_at_a_time_and_a_larger_change_alone() {
    let feed = feed();
    let mut reader = feed.hub.subscribe(everything(), None);
    for _ in 0..20 {
        offer(&feed, &[1.0; 1000]);
    }
    offer(&feed, &[1.0; 10_000]);
    let mut sizes = Vec::new();
    while let Some(delivery) = reader.try_next() {
        assert_eq!(delivery.num_missed, 0);
        sizes.push(delivery.items(reader.filter()).count());
    }
    assert_eq!(sizes.iter().sum::<usize>(), 30_000);
    assert_eq!(sizes.pop(), Some(10_000));
    assert!(sizes.iter().all(|size| *size < 7000), "{sizes:?}");
}

#[test]
fn a_change_larger_than_the_ring_is_missed_and_nothing_breaks() {
    let feed = Arc::new(LiveFeed::new(100, None));
    let mut reader = feed.hub.subscribe(everything(), None);
    offer(&feed, &[1.0, 2.0]);
    assert_eq!(heard(&mut reader), ["missed 2"]);
}

#[tokio::test]
async fn a_reader_that_waits_is_woken() {
    let feed = feed();
    let stopped = CancellationToken::new();
    let wakes = tokio::spawn(Arc::clone(&feed.hub).run_wakes(stopped.clone()));
    let mut reader = feed.hub.subscribe(everything(), None);
    for number in 1..4 {
        let (delivery, ()) = tokio::join!(reader.next(), async {
            tokio::task::yield_now().await;
            offer(&feed, &[1.0]);
        });
        assert_eq!(delivery.last_number, number);
    }
    stopped.cancel();
    wakes.await.unwrap();
}

fn connection(feed: &Arc<LiveFeed>, device_id: Uuid) -> Presence {
    feed.connected(device_id, Protocol::Hdp, ADDRESS)
}

fn following(num_tracked_max: usize) -> (Arc<LiveFeed>, Arc<DeviceStates>) {
    let states = Arc::new(DeviceStates::new(num_tracked_max));
    let feed = LiveFeed::new(1 << 20, Some(Arc::clone(&states)));
    (Arc::new(feed), states)
}

fn taken(states: &DeviceStates) -> Vec<DeviceState> {
    let mut taken = states.take_due(usize::MAX);
    taken.sort_by_key(|state| state.device_id);
    taken
}

fn newest(states: &DeviceStates, device_id: Uuid) -> Option<(String, Option<f64>)> {
    let event = states.get(device_id)?.newest_event?;
    Some((event.event_type.into(), event.value))
}

#[test]
fn a_state_is_due_once_however_often_it_changed_and_again_when_it_is_given_back() {
    let (feed, states) = following(10);
    let presence = connection(&feed, DEVICE);
    offer(&feed, &[1.0]);
    offer(&feed, &[2.0]);
    let first = taken(&states);
    assert_eq!(first.len(), 1);
    assert_eq!(newest(&states, DEVICE), Some(("t".to_owned(), Some(2.0))));
    assert_eq!(taken(&states), []);
    states.give_back(&first);
    assert_eq!(taken(&states), first);
    presence.seen();
    assert_eq!(taken(&states).len(), 1);
    states.make_all_due();
    assert_eq!(taken(&states).len(), 1);
}

#[test]
fn a_state_is_forgotten_when_its_device_has_gone_and_it_is_kept_elsewhere() {
    let (feed, states) = following(10);
    let presence = connection(&feed, DEVICE);
    states.kept_elsewhere(&taken(&states));
    assert_eq!(states.num_tracked(), 1, "it is connected");
    drop(presence);
    let ended = taken(&states);
    assert!(!ended[0].is_connected);
    let back = connection(&feed, DEVICE);
    states.kept_elsewhere(&ended);
    assert_eq!(states.num_tracked(), 1, "it has come back meanwhile");
    drop(back);
    states.kept_elsewhere(&taken(&states));
    assert_eq!((states.num_tracked(), states.get(DEVICE)), (0, None));
}

#[test]
fn states_beyond_the_limit_are_counted_and_not_held() {
    let (feed, states) = following(2);
    let presences: Vec<_> = (1..=3)
        .map(|id| connection(&feed, Uuid::from_u128(id)))
        .collect();
    assert_eq!((states.num_tracked(), states.num_untracked()), (2, 1));
    drop(presences);
    assert_eq!(taken(&states).len(), 2);
}

#[test]
fn a_child_is_connected_through_the_gateway_that_spoke_for_it_unless_it_is_itself() {
    let (feed, states) = following(10);
    let gateway = connection(&feed, DEVICE);
    let childs = Event {
        device_id: Some(CHILD),
        ..event("b", 2.0)
    };
    let frame = entry(DEVICE, &[event("a", 1.0), childs], &[]);
    feed.events(&frame, Outline::Mixed);
    assert_eq!(newest(&states, CHILD), Some(("b".to_owned(), Some(2.0))));
    assert_eq!(newest(&states, DEVICE), Some(("a".to_owned(), Some(1.0))));
    let through = |id| states.get(id).unwrap().connection.unwrap().device_id;
    assert!(states.get(CHILD).unwrap().is_connected);
    assert_eq!(through(CHILD), DEVICE);
    let itself = connection(&feed, CHILD);
    feed.events(&frame, Outline::Mixed);
    assert_eq!(through(CHILD), CHILD);
    drop(gateway);
    assert!(!states.get(DEVICE).unwrap().is_connected);
    assert!(states.get(CHILD).unwrap().is_connected);
    drop(itself);
    assert!(!states.get(CHILD).unwrap().is_connected);
}

#[test]
fn the_end_of_an_older_connection_does_not_end_a_newer_one() {
    let (feed, states) = following(10);
    let older = connection(&feed, DEVICE);
    let _newer = connection(&feed, DEVICE);
    drop(older);
    assert!(states.get(DEVICE).unwrap().is_connected);
}

#[test]
fn an_event_of_an_earlier_time_is_not_the_newest() {
    let (feed, states) = following(10);
    let _presence = connection(&feed, DEVICE);
    let at = |time_us, value| Event {
        time_us: Some(time_us),
        ..event("t", value)
    };
    for (time_us, value, expected) in [(7, 1.0, 1.0), (6, 2.0, 1.0), (7, 3.0, 3.0)] {
        feed.events(&entry(DEVICE, &[at(time_us, value)], &[]), Outline::Mixed);
        assert_eq!(
            newest(&states, DEVICE),
            Some(("t".to_owned(), Some(expected)))
        );
    }
}

#[test]
fn rejected_events_and_results_of_commands_are_no_newest_event() {
    let (feed, states) = following(10);
    let _presence = connection(&feed, DEVICE);
    let events = [
        event("a", 1.0),
        event("", 2.0),
        event("command_result", 3.0),
    ];
    feed.events(&entry(DEVICE, &events, &[1]), Outline::Mixed);
    assert_eq!(newest(&states, DEVICE), Some(("a".to_owned(), Some(1.0))));
    let nothing = Outline::Own {
        newest_offset: None,
    };
    feed.events(&entry(DEVICE, &[event("", 2.0)], &[0]), nothing);
    assert_eq!(newest(&states, DEVICE), Some(("a".to_owned(), Some(1.0))));
}

/// Prints what an offer costs the intake. `cargo test --release -- --ignored --nocapture what_an_offer_costs`
#[test]
#[ignore = "a measurement"]
fn what_an_offer_costs() {
    let events: Vec<_> = (0..10)
        .map(|value| event("temperature", f64::from(value)))
        .collect();
    let payload = entry(DEVICE, &events, &[]);
    let measure = |name: &str, feed: &LiveFeed, outline: Outline| {
        let (num_offers, mut longest) = (500_000u32, Duration::ZERO);
        let mut spent = Duration::ZERO;
        for _ in 0..num_offers {
            // A frame's own copy, as the intake makes it.
            let made = Bytes::copy_from_slice(&payload);
            let kept = made.clone();
            let before = Instant::now();
            feed.events(&made, outline);
            let elapsed = before.elapsed();
            drop(kept);
            spent += elapsed;
            longest = longest.max(elapsed);
        }
        let each = spent / num_offers;
        println!("{name}: {each:?} a frame of 10 events, the longest {longest:?}");
    };
    let quiet = Arc::new(LiveFeed::new(64 << 20, None));
    measure("nobody reads, no Redis", &quiet, own());
    let states = Arc::new(DeviceStates::new(10));
    let with_states = Arc::new(LiveFeed::new(64 << 20, Some(states)));
    let _presence = connection(&with_states, DEVICE);
    let newest_offset = payload.len() - Entry::decode(&payload).unwrap().events.len();
    let own_event = Outline::Own {
        newest_offset: Some(newest_offset),
    };
    measure("device states", &with_states, own_event);
    measure(
        "device states, a gateway's frame",
        &with_states,
        Outline::Mixed,
    );
    let readers: Vec<_> = (0..10_000)
        .map(|_| quiet.hub.subscribe(everything(), None))
        .collect();
    measure("10 000 readers that do not read", &quiet, own());
    drop(readers);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let mut reader = quiet.hub.subscribe(everything(), None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut num_items, mut num_missed) = (0, 0);
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                while let Some(delivery) = reader.try_next() {
                    num_missed += delivery.num_missed;
                    num_items += delivery.items(reader.filter()).count();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            println!("a reader decoded {num_items} events and missed {num_missed}");
        });
        measure("a reader that reads all", &quiet, own());
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
