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
    feed.events(&entry(DEVICE, &events, &[]), own());
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

/// Prints what an offer costs the intake. `cargo test --release -- --ignored --nocapture what_an_offer_costs`
#[test]
#[ignore = "a measurement"]
fn what_an_offer_costs() {
    let feed = Arc::new(LiveFeed::new(64 << 20, None));
    let events: Vec<_> = (0..10)
        .map(|value| event("temperature", f64::from(value)))
        .collect();
    let payload = entry(DEVICE, &events, &[]);
    let measure = |name: &str| {
        let (num_offers, started) = (500_000, Instant::now());
        let mut longest = Duration::ZERO;
        for _ in 0..num_offers {
            let before = Instant::now();
            // A frame's own copy, as the intake makes it.
            let made = Bytes::copy_from_slice(&payload);
            feed.events(&made, own());
            longest = longest.max(before.elapsed());
        }
        let each = started.elapsed() / num_offers;
        println!("{name}: {each:?} a frame of 10 events, the longest {longest:?}");
    };
    measure("nobody reads");
    let readers: Vec<_> = (0..100)
        .map(|_| feed.hub.subscribe(everything(), None))
        .collect();
    measure("100 readers that do not read");
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for mut reader in readers.into_iter().take(1) {
            let is_done = &is_done;
            scope.spawn(move || {
                let mut num_items = 0;
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    while let Some(delivery) = reader.try_next() {
                        num_items += delivery.items(reader.filter()).count();
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                println!("a reader decoded {num_items} events");
            });
        }
        measure("a reader that reads all");
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
