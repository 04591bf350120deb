//! What is answered, in the words of the API that was asked.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::Written;
use super::body::BodyError;
use super::keep::Kept;
use super::routes::NoRoute;
use crate::frame::EVENTS_PER_FRAME_MAX;
use crate::pipeline::intake::Refusal;

/// Seconds until it is worth trying again.
const RETRY_AFTER_S: &str = "1";

#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    body: Option<Value>,
    header: Option<(HeaderName, &'static str)>,
}

impl Answer {
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            body: None,
            header: None,
        }
    }

    pub fn json(body: &Value) -> Self {
        Self {
            body: Some(body.clone()),
            ..Self::empty(StatusCode::OK)
        }
    }

    /// As ThingsBoard says that nothing came while the device waited.
    pub fn nothing_came() -> Self {
        Self::empty(StatusCode::REQUEST_TIMEOUT)
    }

    pub fn no_route(no_route: NoRoute) -> Self {
        match no_route {
            NoRoute::Path => Dialect::ThingsBoard.not_found("nothing is served here"),
            NoRoute::Method { allowed } => Self {
                header: Some((ALLOW, allowed)),
                ..Self::empty(StatusCode::METHOD_NOT_ALLOWED)
            },
        }
    }

    /// For the metrics.
    pub fn code(&self) -> &'static str {
        match self.status {
            StatusCode::OK => "200",
            StatusCode::NO_CONTENT => "204",
            StatusCode::BAD_REQUEST => "400",
            StatusCode::UNAUTHORIZED => "401",
            StatusCode::REQUEST_TIMEOUT => "408",
            StatusCode::PAYLOAD_TOO_LARGE => "413",
            StatusCode::SERVICE_UNAVAILABLE => "503",
            _ => "other",
        }
    }

    pub fn into_response(self) -> Written {
        let body = self.body.map(|body| Bytes::from(body.to_string()));
        let content_type = body.is_some().then_some((CONTENT_TYPE, "application/json"));
        let mut response = Response::new(Full::new(body.unwrap_or_default()));
        *response.status_mut() = self.status;
        for (name, value) in content_type.into_iter().chain(self.header) {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Whose words are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    ThingsBoard,
    Influx,
}

impl Dialect {
    fn problem(self, status: StatusCode, message: &str) -> Answer {
        let body = match self {
            Self::ThingsBoard => json!({"status": status.as_u16(), "message": message}),
            Self::Influx => {
                let code = match status {
                    StatusCode::UNAUTHORIZED => "unauthorized",
                    StatusCode::PAYLOAD_TOO_LARGE => "request too large",
                    StatusCode::SERVICE_UNAVAILABLE => "unavailable",
                    StatusCode::NOT_FOUND => "not found",
                    _ => "invalid",
                };
                json!({"code": code, "message": message})
            }
        };
        Answer {
            body: Some(body),
            ..Answer::empty(status)
        }
    }

    /// One answer for an unknown device, a wrong token and a disabled device.
    pub fn unauthorized(self) -> Answer {
        self.problem(
            StatusCode::UNAUTHORIZED,
            "unknown token, or disabled device",
        )
    }

    pub fn invalid(self, message: &str) -> Answer {
        self.problem(StatusCode::BAD_REQUEST, message)
    }

    pub fn conflict(self, message: &str) -> Answer {
        self.problem(StatusCode::CONFLICT, message)
    }

    pub fn not_found(self, message: &str) -> Answer {
        self.problem(StatusCode::NOT_FOUND, message)
    }

    pub fn not_now(self, message: &str) -> Answer {
        Answer {
            header: Some((RETRY_AFTER, RETRY_AFTER_S)),
            ..self.problem(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }

    pub fn too_many(self) -> Answer {
        let message = format!("more than {EVENTS_PER_FRAME_MAX} values at a time: send fewer");
        self.problem(StatusCode::PAYLOAD_TOO_LARGE, &message)
    }

    pub fn no_body(self, error: &BodyError) -> Answer {
        let status = match error {
            BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            // Telegraf lets go of what any other 4xx answers.
            BodyError::Late => return self.not_now(&error.to_string()),
            BodyError::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BodyError::Broken | BodyError::Gzip(_) => StatusCode::BAD_REQUEST,
        };
        self.problem(status, &error.to_string())
    }

    pub fn of_kept(self, kept: Kept) -> Answer {
        match kept {
            Kept::Events => Answer::empty(match self {
                Self::ThingsBoard => StatusCode::OK,
                Self::Influx => StatusCode::NO_CONTENT,
            }),
            Kept::Unreadable(why) => self.invalid(&format!("kept as a dead letter: {why}")),
            Kept::Refused(Refusal::TooLarge) => self.problem(
                StatusCode::PAYLOAD_TOO_LARGE,
                "more than this node's journal can hold at a time",
            ),
            Kept::Refused(refusal) => self.not_now(match refusal {
                Refusal::JournalFull | Refusal::AfterRefusal => {
                    "the journal is full: send it again later"
                }
                Refusal::TooLarge | Refusal::JournalGone => {
                    "this node cannot make anything durable: send it again"
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_hears_its_own_words() {
        let told = |answer: Answer| (answer.status.as_u16(), answer.body.unwrap_or_default());
        let (status, body) = told(Dialect::Influx.unauthorized());
        assert_eq!((status, &body["code"]), (401, &json!("unauthorized")));
        let (status, body) = told(Dialect::ThingsBoard.unauthorized());
        assert_eq!((status, &body["status"]), (401, &json!(401)));
        let kept = |dialect: Dialect, kept| told(dialect.of_kept(kept)).0;
        assert_eq!(kept(Dialect::Influx, Kept::Events), 204);
        assert_eq!(kept(Dialect::ThingsBoard, Kept::Events), 200);
        let unreadable = Kept::Unreadable("no JSON".to_owned());
        assert_eq!(kept(Dialect::Influx, unreadable), 400);
        let full = Kept::Refused(Refusal::JournalFull);
        let answer = Dialect::Influx.of_kept(full).into_response();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()[RETRY_AFTER], "1");
    }
}
