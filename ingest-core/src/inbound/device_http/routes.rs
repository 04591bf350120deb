//! What a request asks for, by its method and its path.

use hyper::Method;

/// Where a device posts JSON of its own making.
pub const JSON: &str = "/hse/v1/json";

/// A request of ours.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// ThingsBoard's device API, of the device with this token.
    Device {
        token: &'a str,
        asked: Asked<'a>,
    },
    Provision,
    /// JSON as the profile of the device maps it; the token may stand in the path.
    Json {
        token: Option<&'a str>,
    },
    /// InfluxDB's `POST /api/v2/write`.
    Write,
    /// Whether there is somebody, which clients of InfluxDB ask.
    Ping,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    Telemetry,
    ReportAttributes,
    ReadAttributes,
    /// Waits for a change of what is desired.
    AttributeUpdates,
    /// Waits for a command.
    Command,
    /// The answer to a command.
    CommandResult {
        number: &'a str,
    },
    /// The device asks.
    Rpc,
    Claim,
}

/// Why it is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    Path,
    /// With another method it would be one.
    Method {
        allowed: &'static str,
    },
}

/// # Errors
/// [`NoRoute`].
pub fn route<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, NoRoute> {
    let is_post = method == Method::POST;
    let is_get = method == Method::GET;
    match path {
        "/api/v1/provision" if is_post => return Ok(Route::Provision),
        "/api/v2/write" if is_post => return Ok(Route::Write),
        JSON if is_post => return Ok(Route::Json { token: None }),
        "/api/v1/provision" | "/api/v2/write" | JSON => {
            return Err(NoRoute::Method { allowed: "POST" });
        }
        "/ping" if is_get || method == Method::HEAD => return Ok(Route::Ping),
        "/ping" => {
            return Err(NoRoute::Method {
                allowed: "GET, HEAD",
            });
        }
        _ => {}
    }
    if let Some(token) = path.strip_prefix(JSON).and_then(|p| p.strip_prefix('/')) {
        return match (is_post, token.contains('/')) {
            (_, true) => Err(NoRoute::Path),
            (true, false) => Ok(Route::Json { token: Some(token) }),
            (false, false) => Err(NoRoute::Method { allowed: "POST" }),
        };
    }
    let of_device = path.strip_prefix("/api/v1/").ok_or(NoRoute::Path)?;
    let (token, asked) = of_device.split_once('/').ok_or(NoRoute::Path)?;
    let number = asked.strip_prefix("rpc/");
    let asked = match (asked, is_post, is_get) {
        ("telemetry", true, _) => Asked::Telemetry,
        ("attributes", true, _) => Asked::ReportAttributes,
        ("attributes", _, true) => Asked::ReadAttributes,
        ("attributes/updates", _, true) => Asked::AttributeUpdates,
        ("rpc", true, _) => Asked::Rpc,
        ("rpc", _, true) => Asked::Command,
        ("claim", true, _) => Asked::Claim,
        ("telemetry" | "claim", ..) => return Err(NoRoute::Method { allowed: "POST" }),
        ("attributes" | "rpc", ..) => {
            return Err(NoRoute::Method {
                allowed: "GET, POST",
            });
        }
        ("attributes/updates", ..) => return Err(NoRoute::Method { allowed: "GET" }),
        _ => match (number, is_post) {
            (Some(number), true) => Asked::CommandResult { number },
            (Some(_), false) => return Err(NoRoute::Method { allowed: "POST" }),
            (None, _) => return Err(NoRoute::Path),
        },
    };
    Ok(Route::Device { token, asked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_method_and_its_path() {
        let of_device = |asked| Ok(Route::Device { token: "t", asked });
        for (method, path, expected) in [
            ("POST", "/api/v1/t/telemetry", of_device(Asked::Telemetry)),
            (
                "POST",
                "/api/v1/t/attributes",
                of_device(Asked::ReportAttributes),
            ),
            (
                "GET",
                "/api/v1/t/attributes",
                of_device(Asked::ReadAttributes),
            ),
            (
                "GET",
                "/api/v1/t/attributes/updates",
                of_device(Asked::AttributeUpdates),
            ),
            ("GET", "/api/v1/t/rpc", of_device(Asked::Command)),
            ("POST", "/api/v1/t/rpc", of_device(Asked::Rpc)),
            (
                "POST",
                "/api/v1/t/rpc/7",
                of_device(Asked::CommandResult { number: "7" }),
            ),
            ("POST", "/api/v1/t/claim", of_device(Asked::Claim)),
            ("POST", "/api/v1/provision", Ok(Route::Provision)),
            ("POST", "/api/v2/write", Ok(Route::Write)),
            ("POST", "/hse/v1/json", Ok(Route::Json { token: None })),
            (
                "POST",
                "/hse/v1/json/t",
                Ok(Route::Json { token: Some("t") }),
            ),
            ("POST", "/hse/v1/json/t/x", Err(NoRoute::Path)),
            (
                "PUT",
                "/hse/v1/json/t",
                Err(NoRoute::Method { allowed: "POST" }),
            ),
            ("GET", "/ping", Ok(Route::Ping)),
            ("GET", "/api/v1/t", Err(NoRoute::Path)),
            ("GET", "/api/v1/t/x", Err(NoRoute::Path)),
            ("GET", "/", Err(NoRoute::Path)),
            (
                "DELETE",
                "/api/v1/t/telemetry",
                Err(NoRoute::Method { allowed: "POST" }),
            ),
            (
                "GET",
                "/api/v2/write",
                Err(NoRoute::Method { allowed: "POST" }),
            ),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(route(&method, path), expected, "{method} {path}");
        }
    }
}
