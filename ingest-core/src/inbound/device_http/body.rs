//! The body of a request, whole, within its limits; also one that comes compressed.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use tokio::time::timeout;

use crate::config::LAST_WORDS_TIMEOUT;

/// Read and thrown away before an answer that does not need it.
const UNREAD_BYTES_MAX: usize = 4 << 20;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("a body of more than {0} bytes, which it has at most, also when it is unpacked")]
    TooLarge(usize),
    #[error("the body did not come in time")]
    Late,
    #[error("the body broke off")]
    Broken,
    #[error("a body that is neither plain nor gzip")]
    Encoding,
    #[error("not gzip: {0}")]
    Gzip(std::io::Error),
}

/// Reads a body of at most `bytes_max`.
///
/// # Errors
/// [`BodyError`].
pub async fn read_body(
    headers: &HeaderMap,
    body: Incoming,
    bytes_max: usize,
    within: Duration,
) -> Result<Bytes, BodyError> {
    let is_packed = match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"" | b"identity") => false,
        Some(b"gzip" | b"x-gzip") => true,
        Some(_) => return Err(BodyError::Encoding),
    };
    let collected = timeout(within, collect(body, bytes_max)).await;
    let bytes = collected.map_err(|_| BodyError::Late)??;
    match is_packed {
        true => unpacked(&bytes, bytes_max),
        false => Ok(bytes),
    }
}

async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes, BodyError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > bytes_max {
            drop(bytes);
            discard(body).await;
            return Err(BodyError::TooLarge(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

/// Reads and throws away what is still on its way: a socket that is closed with bytes unread sends a reset, which can overtake
/// the answer.
pub async fn discard(mut body: Incoming) {
    let mut num_bytes = 0;
    // What does not come any more is not waited for.
    let _ = timeout(LAST_WORDS_TIMEOUT, async {
        while let Some(Ok(frame)) = body.frame().await {
            num_bytes += frame.data_ref().map_or(0, Bytes::len);
            if num_bytes > UNREAD_BYTES_MAX {
                return;
            }
        }
    })
    .await;
}

/// However little a body is, what it unpacks to is bounded too.
fn unpacked(packed: &[u8], bytes_max: usize) -> Result<Bytes, BodyError> {
    let one_more = bytes_max as u64 + 1;
    let mut bytes = Vec::new();
    let mut limited = MultiGzDecoder::new(packed).take(one_more);
    limited.read_to_end(&mut bytes).map_err(BodyError::Gzip)?;
    match bytes.len() > bytes_max {
        true => Err(BodyError::TooLarge(bytes_max)),
        false => Ok(bytes.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn what_is_unpacked_is_bounded() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&[b'a'; 100_000]).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(packed.len() < 1000);
        assert_eq!(unpacked(&packed, 100_000).unwrap().len(), 100_000);
        assert!(matches!(
            unpacked(&packed, 99_999),
            Err(BodyError::TooLarge(99_999))
        ));
        assert!(matches!(unpacked(b"no", 9), Err(BodyError::Gzip(_))));
    }
}
