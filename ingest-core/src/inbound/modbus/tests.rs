//! Slaves that are broken or mean harm, and what is made of what they say: nothing, in good time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_modbus::Request;
use uuid::Uuid;

use super::endpoint::Endpoint;
use super::link::Link;
use super::networks::Networks;
use super::plan::Read;
use super::slave::ask_for;
use super::turn::Asking;
use crate::pipeline::profiles::{Framing, ModbusFunction};

const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// For a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
const UNIT_ID: u8 = 7;
const FRAMINGS: [Framing; 2] = [Framing::Tcp, Framing::RtuOverTcp];

/// What comes in reply to a request, on one connection.
#[derive(Debug, Clone)]
enum Reply {
    /// What was asked for: of each register its address.
    Right,
    /// The same, and once more when it is told to.
    Twice(Arc<Notify>),
    /// The same, and the connection's end.
    RightAndEnd,
    Bytes(Vec<u8>),
    BytesAndEnd(Vec<u8>),
    /// These again and again, for as long as they are taken.
    Flood(Vec<u8>),
    /// One by one, without end.
    Trickle,
}

/// A slave; each of its connections replies in its own way, and those behind the last one as they should.
async fn slave(framing: Framing, replies: Vec<Reply>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut replies = replies.into_iter();
        while let Ok((stream, _)) = listener.accept().await {
            let reply = replies.next().unwrap_or(Reply::Right);
            tokio::spawn(serve(stream, framing, reply));
        }
    });
    Endpoint {
        host: "127.0.0.1".to_owned(),
        port,
        framing,
        organization_id: Uuid::nil(),
    }
}

/// Until the other side has gone.
async fn serve(mut stream: TcpStream, framing: Framing, reply: Reply) -> std::io::Result<()> {
    let mut request = [0; 12];
    let request_bytes = match framing {
        Framing::Tcp => 12,
        Framing::RtuOverTcp => 8,
    };
    loop {
        let request = &mut request[..request_bytes];
        stream.read_exact(request).await?;
        let right = right_reply(framing, request);
        match &reply {
            Reply::Right => stream.write_all(&right).await?,
            Reply::Twice(told) => {
                stream.write_all(&right).await?;
                told.notified().await;
                stream.write_all(&right).await?;
            }
            Reply::RightAndEnd => return stream.write_all(&right).await,
            Reply::Bytes(bytes) => stream.write_all(bytes).await?,
            Reply::BytesAndEnd(bytes) => return stream.write_all(bytes).await,
            Reply::Flood(bytes) => loop {
                stream.write_all(bytes).await?;
            },
            Reply::Trickle => loop {
                stream.write_all(&right[..1]).await?;
                sleep(Duration::from_millis(20)).await;
            },
        }
    }
}

fn right_reply(framing: Framing, request: &[u8]) -> Vec<u8> {
    let pdu = match framing {
        Framing::Tcp => &request[7..],
        Framing::RtuOverTcp => &request[1..6],
    };
    let (address, count) = (u16::from_be_bytes([pdu[1], pdu[2]]), pdu[4]);
    let mut reply = vec![pdu[0], 2 * count];
    reply.extend((address..address + u16::from(count)).flat_map(u16::to_be_bytes));
    framed(framing, [request[0], request[1]], UNIT_ID, &reply)
}

fn framed(framing: Framing, transaction: [u8; 2], unit_id: u8, pdu: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Tcp => {
            let length = u8::try_from(pdu.len() + 1).unwrap();
            let header = [transaction[0], transaction[1], 0, 0, 0, length, unit_id];
            [&header[..], pdu].concat()
        }
        Framing::RtuOverTcp => {
            let frame = [&[unit_id], pdu].concat();
            let crc = crc(&frame).to_le_bytes();
            [frame, crc.to_vec()].concat()
        }
    }
}

fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xa001 * (crc & 1))
        })
    })
}

fn link(endpoint: &Endpoint) -> Link {
    let networks = Networks::new(vec!["127.0.0.0/8".to_owned().try_into().unwrap()]);
    Link::new(endpoint.clone(), networks, REPLY_TIMEOUT)
}

/// What is read of two registers from an address on, or what went wrong.
async fn read(link: &mut Link, address: u16) -> Result<Result<Vec<u16>, u8>, String> {
    let read = Read {
        function: ModbusFunction::HoldingRegisters,
        address,
        count: 2,
        registers: vec![0],
    };
    let read = timeout(PATIENCE, ask_for(link, UNIT_ID, &read, Asking::Poll)).await;
    read.expect("in good time")
        .map_err(|error| error.to_string())
}

/// What no reply to the first request can be, in either framing.
fn wrong(framing: Framing) -> Vec<Reply> {
    let frame = |unit_id, pdu: &[u8]| Reply::Bytes(framed(framing, [0, 0], unit_id, pdu));
    let right = [3, 4, 0, 9, 0, 10];
    let mut wrong = vec![
        // Another slave's, and one that answers another function.
        frame(UNIT_ID + 1, &right),
        frame(UNIT_ID, &[4, 4, 0, 9, 0, 10]),
        frame(UNIT_ID, &[0x84, 2]),
        frame(UNIT_ID, &[6, 0, 9, 0, 10]),
        frame(UNIT_ID, &[0x55, 1, 2, 3, 4]),
        frame(UNIT_ID, &[0xff, 1, 2, 3, 4]),
        // Fewer registers than were asked for, more, and half of one.
        frame(UNIT_ID, &[3, 2, 0, 9]),
        frame(UNIT_ID, &[3, 6, 0, 9, 0, 10, 0, 11]),
        frame(UNIT_ID, &[3, 3, 0, 9, 0]),
        frame(UNIT_ID, &[3, 0]),
        // A count that lies.
        frame(UNIT_ID, &[3, 250, 0, 9, 0, 10]),
        frame(UNIT_ID, &[3, 2, 0, 9, 0, 10]),
        Reply::BytesAndEnd(Vec::new()),
        Reply::BytesAndEnd(framed(framing, [0, 0], UNIT_ID, &right)[..5].to_vec()),
        Reply::Bytes(framed(framing, [0, 0], UNIT_ID, &right)[..5].to_vec()),
        Reply::Flood(vec![0; 65_536]),
        Reply::Flood(vec![0xff; 65_536]),
        Reply::Flood(b"HTTP/1.1 400 Bad Request\r\n".repeat(1000)),
        Reply::Trickle,
    ];
    wrong.extend(match framing {
        Framing::Tcp => [
            // Another transaction's, another protocol's, none, and one that is as long as can be.
            framed(framing, [0, 1], UNIT_ID, &right),
            [0, 0, 1, 0, 0, 7, UNIT_ID, 3, 4, 0, 9, 0, 10].to_vec(),
            [0, 0, 0, 0, 0, 0, UNIT_ID, 3, 4, 0, 9, 0, 10].to_vec(),
            [0, 0, 0, 0, 0xff, 0xff, UNIT_ID, 3, 4, 0, 9, 0, 10].to_vec(),
        ]
        .map(Reply::Bytes),
        Framing::RtuOverTcp => [
            [UNIT_ID, 3, 4, 0, 9, 0, 10, 0, 0].to_vec(),
            [UNIT_ID, 0x2b, 0x0e, 1, 1, 0, 0, 255, 0, 255].to_vec(),
            [UNIT_ID, 0x18, 0xff, 0xff].to_vec(),
            vec![0x7f; 300],
        ]
        .map(Reply::Bytes),
    });
    wrong
}

#[tokio::test]
async fn what_is_no_reply_is_no_value_and_what_comes_next_is_right() {
    let cases = FRAMINGS.map(|framing| {
        wrong(framing)
            .into_iter()
            .map(move |reply| (framing, reply))
    });
    let cases = cases
        .into_iter()
        .flatten()
        .map(|(framing, reply)| async move {
            let endpoint = slave(framing, vec![reply.clone(), reply.clone()]).await;
            let (mut link, begun) = (link(&endpoint), Instant::now());
            let said = read(&mut link, 9).await;
            assert!(said.is_err(), "{framing:?} {reply:?}: {said:?}");
            assert!(begun.elapsed() < PATIENCE);
            let _ = read(&mut link, 9).await;
            let right = read(&mut link, 20).await;
            assert_eq!(right, Ok(Ok(vec![20, 21])), "{framing:?} {reply:?}");
        });
    join_all(cases).await;
}

#[tokio::test]
async fn an_exception_is_its_number_whatever_that_is() {
    for framing in FRAMINGS {
        for code in [0, 1, 4, 7, 9, 12, 255] {
            let exception = framed(framing, [0, 0], UNIT_ID, &[0x83, code]);
            let endpoint = slave(framing, vec![Reply::Bytes(exception)]).await;
            assert_eq!(read(&mut link(&endpoint), 9).await, Ok(Err(code)));
        }
    }
}

/// Waits until something has come that nobody has asked for, or the end.
async fn until_not_quiet(link: &Link) {
    let noticed = timeout(PATIENCE, async {
        while link
            .connection()
            .is_some_and(|connection| connection.is_quiet())
        {
            sleep(Duration::from_millis(5)).await;
        }
    });
    noticed.await.expect("it comes");
}

#[tokio::test]
async fn what_comes_unasked_is_not_taken_for_the_next_reply() {
    for framing in FRAMINGS {
        let told = Arc::new(Notify::new());
        let endpoint = slave(framing, vec![Reply::Twice(Arc::clone(&told))]).await;
        let mut link = link(&endpoint);
        assert_eq!(read(&mut link, 9).await, Ok(Ok(vec![9, 10])));
        told.notify_one();
        until_not_quiet(&link).await;
        assert_eq!(read(&mut link, 20).await, Ok(Ok(vec![20, 21])));
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_write() {
    for framing in FRAMINGS {
        let endpoint = slave(framing, vec![Reply::RightAndEnd]).await;
        let mut link = link(&endpoint);
        assert_eq!(read(&mut link, 9).await, Ok(Ok(vec![9, 10])));
        until_not_quiet(&link).await;
        let request = Request::ReadHoldingRegisters(20, 2);
        let asked = timeout(PATIENCE, link.call(UNIT_ID, request, Asking::Write));
        assert!(asked.await.expect("in good time").is_ok());
    }
}

#[tokio::test]
async fn a_probe_is_given_up_when_it_was_to_be_and_is_not_held_against_the_endpoint() {
    for framing in FRAMINGS {
        let silent = Reply::Bytes(Vec::new());
        let endpoint = slave(framing, vec![silent, Reply::BytesAndEnd(vec![1])]).await;
        let mut link = link(&endpoint);
        for within in [Duration::from_millis(30), PATIENCE] {
            let until = Instant::now() + within;
            let request = Request::ReadHoldingRegisters(20, 2);
            let asked = link.call(UNIT_ID, request, Asking::Probe { until });
            let failed = timeout(PATIENCE, asked).await.expect("in good time");
            assert!(failed.is_err(), "{failed:?}");
            assert!(link.next_attempt() <= Instant::now());
        }
        assert_eq!(read(&mut link, 20).await, Ok(Ok(vec![20, 21])));
    }
}
