//! A stream of events, read row by row.
//!
//! Must never lose or repeat a row: what is not whole yet is kept until it is.

use hitl_api::Event;
use reqwest::{Response, Url};

use crate::{ClientError, foreign, unreachable};

/// Longest event, in bytes; more is no event of a gate.
pub(crate) const LONGEST: usize = 64 * 1024 * 1024;

/// Events as they come.
#[derive(Debug)]
pub struct Events {
    response: Response,
    url: Url,
    lines: Lines,
}

impl Events {
    pub(crate) fn new(response: Response, url: Url) -> Self {
        Self { response, url, lines: Lines::default() }
    }

    /// The next event; `None` when the stream has ended. Resume behind the last one's `seq`.
    ///
    /// # Errors
    /// When the connection breaks, or when something comes that is no event.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(data) = self.lines.next_data() {
                let event = hitl_core::json::read(&data);
                return event.map(Some).map_err(|error| foreign(&self.url, &error));
            }
            let chunk = self.response.chunk().await;
            match chunk.map_err(|error| unreachable(&self.url, &error))? {
                Some(chunk) => self.lines.extend(&chunk),
                None => return Ok(None),
            }
            if self.lines.buffer.len() > LONGEST {
                return Err(foreign(&self.url, &"an event that does not end"));
            }
        }
    }
}

/// Cuts server-sent events out of what arrives. Of their fields only `data` is read: the row in it
/// has its own number and kind.
#[derive(Debug, Default)]
struct Lines {
    buffer: Vec<u8>,
    data: String,
}

impl Lines {
    fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn next_data(&mut self) -> Option<String> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() && !self.data.is_empty() {
                return Some(std::mem::take(&mut self.data));
            }
            if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_are_cut() {
        let text =
            b"id: 1\nevent: received\ndata: {\"a\":\ndata: 1}\n\n: ping\n\ndata: {}\r\n\r\nid: 3\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for chunk in text.chunks(size) {
                lines.extend(chunk);
                while let Some(data) = lines.next_data() {
                    found.push(data);
                }
            }
            assert_eq!(found, ["{\"a\":\n1}", "{}"], "in pieces of {size}");
        }
    }
}
