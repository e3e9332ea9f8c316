//! The audit, row by row.

use hitl_api::Event;
use reqwest::{Response, Url};

use crate::{ClientError, events::LONGEST, foreign, unreachable};

/// Rows as they arrive.
#[derive(Debug)]
pub struct Rows {
    answer: Response,
    url: Url,
    /// What has arrived of the next row.
    begun: Vec<u8>,
}

impl Rows {
    pub(crate) fn new(answer: Response, url: Url) -> Self {
        Self { answer, url, begun: Vec::new() }
    }

    /// The next rows, some at once; none when there are no more.
    ///
    /// # Errors
    /// See [`ClientError`]. A row that has not arrived whole is one, too.
    pub async fn next(&mut self) -> Result<Option<Vec<Event>>, ClientError> {
        loop {
            let chunk =
                self.answer.chunk().await.map_err(|error| unreachable(&self.url, &error))?;
            let Some(chunk) = chunk else {
                if self.begun.is_empty() {
                    return Ok(None);
                }
                return Err(foreign(&self.url, &"its audit ends in the middle of a row"));
            };
            self.begun.extend_from_slice(&chunk);
            if self.begun.len() > LONGEST {
                return Err(foreign(&self.url, &"a row that does not end"));
            }
            let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = self.begun.split_off(end + 1);
            let lines = std::mem::replace(&mut self.begun, rest);
            let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let rows = lines.map(hitl_core::json::read).collect::<Result<_, _>>();
            return rows.map(Some).map_err(|error| foreign(&self.url, &error));
        }
    }
}
