//! Who may call, and how many at a time. Asked before a call's message is read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use tracing::debug;

use super::CALLS_MAX;
use crate::metrics::{Metrics, Reason};

/// Whose connection it is.
#[derive(Debug)]
pub struct Guest {
    pub address: SocketAddr,
    /// It showed a certificate that the setting's authority signed.
    pub has_certificate: bool,
    is_known: AtomicBool,
}

impl Guest {
    pub fn new(address: SocketAddr, has_certificate: bool) -> Self {
        Self {
            address,
            has_certificate,
            is_known: AtomicBool::new(has_certificate),
        }
    }

    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }
}

/// Counts a call as long as it or its stream is there.
#[derive(Clone)]
pub struct CallPermit {
    _permit: Arc<OwnedSemaphorePermit>,
}

#[derive(Clone)]
pub struct Gate {
    /// Of the token; without one only certificates count.
    token_hash: Option<[u8; 32]>,
    free: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Gate {
    pub fn new(token: Option<&str>, metrics: Arc<Metrics>) -> Self {
        Self {
            token_hash: token.map(|token| Sha256::digest(token.as_bytes()).into()),
            free: Arc::new(Semaphore::new(CALLS_MAX)),
            metrics,
        }
    }

    fn refuse(&self, reason: &'static str) {
        let refused = &self.metrics.grpc_refused;
        refused.get_or_create(&Reason { reason }).inc();
    }

    /// Takes the same time for every token of one length, the right one too.
    fn is_token(&self, request: &Request<()>) -> bool {
        let header = request.metadata().get("authorization");
        let said = header
            .and_then(|value| value.to_str().ok())
            .and_then(|text| {
                text.strip_prefix("Bearer ")
                    .or_else(|| text.strip_prefix("bearer "))
            });
        let said: [u8; 32] = Sha256::digest(said.unwrap_or_default()).into();
        let expected = self.token_hash.unwrap_or_default();
        bool::from(said.ct_eq(&expected)) && self.token_hash.is_some()
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let guest = request.extensions().get::<Arc<Guest>>().cloned();
        let guest = guest.ok_or_else(|| Status::internal("connection without an address"))?;
        if !guest.has_certificate {
            if !self.is_token(&request) {
                self.refuse("unauthenticated");
                debug!(address = %guest.address, "call without the service token");
                return Err(Status::unauthenticated(
                    "no service token, or a wrong one: send the metadata `authorization: Bearer <HSE_SERVICE_TOKEN>`",
                ));
            }
            guest.is_known.store(true, Ordering::Relaxed);
        }
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            self.refuse("calls_max");
            return Err(Status::resource_exhausted(
                "too many calls are under way on this node: try again later",
            ));
        };
        request.extensions_mut().insert(CallPermit {
            _permit: Arc::new(permit),
        });
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(
        gate: &mut Gate,
        guest: &Arc<Guest>,
        authorization: Option<&str>,
    ) -> Option<tonic::Code> {
        let mut request = Request::new(());
        request.extensions_mut().insert(Arc::clone(guest));
        if let Some(text) = authorization {
            let value = text.parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        gate.call(request).err().map(|status| status.code())
    }

    fn guest(has_certificate: bool) -> Arc<Guest> {
        Arc::new(Guest::new("127.0.0.1:1".parse().unwrap(), has_certificate))
    }

    #[test]
    fn the_right_token_is_let_in_and_makes_the_connection_known() {
        let mut gate = Gate::new(Some("right"), Arc::default());
        let guest = guest(false);
        let refused = Some(tonic::Code::Unauthenticated);
        let wrong = [
            "Bearer wrong",
            "right",
            "Bearer ",
            "Bearer rightx",
            "Basic right",
        ];
        for authorization in wrong.map(Some).into_iter().chain([None]) {
            assert_eq!(call(&mut gate, &guest, authorization), refused);
        }
        assert!(!guest.is_known());
        assert_eq!(call(&mut gate, &guest, Some("Bearer right")), None);
        assert!(guest.is_known());
    }

    #[test]
    fn without_a_token_a_certificate_alone_is_let_in() {
        let mut gate = Gate::new(None, Arc::default());
        let refused = Some(tonic::Code::Unauthenticated);
        assert_eq!(call(&mut gate, &guest(false), Some("Bearer ")), refused);
        assert_eq!(call(&mut gate, &guest(false), None), refused);
        assert_eq!(call(&mut gate, &guest(true), None), None);
    }

    #[test]
    fn calls_are_bounded_while_they_last() {
        let mut gate = Gate::new(None, Arc::default());
        let one = || {
            let mut request = Request::new(());
            request.extensions_mut().insert(guest(true));
            request
        };
        let mut held: Vec<_> = (0..CALLS_MAX).map(|_| gate.call(one()).unwrap()).collect();
        let refused = gate.call(one()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        held.pop();
        assert!(gate.call(one()).is_ok());
    }
}
