//! How a lenient server reads a path: decoded, with backslashes, parameters, empty segments and dots.
//!
//! Invariant: it resolves more than any one server does, so that it finds a route wherever one of them
//! might.

/// Times that a server, or two behind one another, may decode a path.
const DECODINGS: usize = 3;

/// The path that a lenient server serves for a request target: lower case, beginning with one slash.
pub fn lenient(target: &str) -> String {
    let target = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| rest.get(at..).unwrap_or("/")),
        None => target,
    };
    let mut path = target.split(['?', '#']).next().unwrap_or_default().to_owned();
    for _ in 0..DECODINGS {
        path = decoded(&path);
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default().trim_matches('\0') {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/")).to_lowercase()
}

/// Percent-decoded once; overlong forms of a dot, a slash and a backslash are those.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = match (first, after) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        if let Some((high, low)) = hex {
            bytes.push(high << 4 | low);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    for (overlong, plain) in [([0xc0, 0xae], b'.'), ([0xc0, 0xaf], b'/'), ([0xc1, 0x9c], b'\\')] {
        while let Some(at) = bytes.windows(2).position(|pair| pair == overlong) {
            bytes.splice(at..at + 2, [plain]);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::lenient;

    #[test]
    fn every_way_to_the_privileged_route_is_found() {
        for target in [
            "/privileged/mcp",
            "/public/../privileged/mcp",
            "/public/%2e%2e/privileged/mcp",
            "/public/..%2fprivileged/mcp",
            "/public/..%5cprivileged\\mcp",
            "/public/%252e%252e%252fprivileged/mcp",
            "/public/..;x/privileged;y/mcp",
            "//privileged//mcp/",
            "/PRIVILEGED/mcp?x",
            "/public/%c0%ae%c0%ae/privileged/mcp",
            "http://host/public/../privileged/mcp",
        ] {
            assert_eq!(lenient(target), "/privileged/mcp", "{target}");
        }
        assert_eq!(lenient("/public/mcp"), "/public/mcp");
        assert_eq!(lenient("/privileged/../public/mcp"), "/public/mcp");
    }
}
