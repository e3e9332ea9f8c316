//! A request's head that has begun comes to its end, soon.
//!
//! Owns the knowledge of where a connection stands (nothing sent, a head begun, a request being
//! answered) and the timer that hyper asks while it waits for a head. Must never close a connection
//! because it is idle for a while: gateways keep connections for later, and a call that a person
//! approved would be lost on one that closes as it is sent. Must never cut a body or an answer.
//!
//! hyper's own timeout begins when it begins to wait, idle or not. So it gets a timer of ours: hyper
//! makes a new one whenever it waits for a head, and polls it whenever it has read all there is and
//! the head is not whole. That is exact, whatever comes before: bodies, early answers, 100-continue.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};

/// How long a head may take from its first byte, and how long a connection may be without one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
}

/// Where a connection stands; its stream, its timer and its service share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Mutex<Standing>>);

#[derive(Debug, Default)]
struct Standing {
    /// Bytes read so far.
    read: u64,
    lines: Lines,
    /// hyper waits for a head.
    waiting: bool,
    /// Some of that head has been read.
    begun: bool,
    /// Reading begins where the head does: its end can be told.
    whole: bool,
    /// Where the head ends, or the request that it opens.
    end: Option<u64>,
}

impl Progress {
    /// The head is whole; a body of this length follows it. A chunked one does not say.
    pub(crate) fn complete(&self, body: Option<u64>) {
        let mut standing = self.standing();
        standing.waiting = false;
        standing.end = standing.end.zip(body).and_then(|(end, body)| end.checked_add(body));
    }

    /// hyper begins to wait for a head, and may have some of it: who sends requests without waiting
    /// for answers sends the next one's beginning with the last one's end.
    fn wait(&self) {
        let mut standing = self.standing();
        let clean = match standing.end.take() {
            Some(end) => standing.read == end,
            // A chunked body ends with an empty line, as a head does.
            None => standing.read == 0 || standing.lines.ended,
        };
        standing.waiting = true;
        standing.begun = !clean;
        standing.whole = clean;
    }

    /// This was read; none at the end of it.
    pub(crate) fn read(&self, bytes: &[u8]) {
        let mut standing = self.standing();
        if standing.waiting && standing.whole && !standing.begun {
            standing.lines = Lines::default();
        }
        let seeking = standing.waiting && standing.whole && standing.end.is_none();
        let end = standing.lines.read(bytes);
        if let Some(end) = end.filter(|_| seeking) {
            standing.end = Some(standing.read + end);
        }
        standing.begun |= standing.waiting && !bytes.is_empty();
        standing.read += bytes.len() as u64;
    }

    fn begun(&self) -> bool {
        self.standing().begun
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for the empty line that ends a head, as hyper does: a line may end without a carriage
/// return, and empty lines before a head are none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    /// Something other than empty lines was read.
    begun: bool,
    /// The line that is being read has something in it.
    filled: bool,
    /// What was read last ended an empty line behind something.
    ended: bool,
}

impl Lines {
    /// Reads on. Gives back how many of these bytes belong to the first head that ends in them.
    fn read(&mut self, bytes: &[u8]) -> Option<u64> {
        let mut first = None;
        for (at, byte) in (1..).zip(bytes) {
            match byte {
                b'\n' => {
                    self.ended = self.begun && !self.filled;
                    self.filled = false;
                    if self.ended {
                        first = first.or(Some(at));
                    }
                }
                b'\r' => self.ended = false,
                _ => *self = Self { begun: true, filled: true, ended: false },
            }
        }
        first
    }
}

/// Makes the timers that hyper asks while it waits for a head.
#[derive(Clone, Debug)]
pub(crate) struct HeadTimer {
    pub(crate) progress: Progress,
    pub(crate) patience: Patience,
}

impl Timer for HeadTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.progress.wait();
        let begun = self.progress.begun();
        let patience = if begun { self.patience.head } else { self.patience.idle };
        let sleep = Box::pin(tokio::time::sleep(patience));
        Box::pin(Waiting { timer: self.clone(), begun, sleep })
    }

    /// hyper's deadline counts from when it begins to wait; that is not the one to keep.
    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(self.patience.head)
    }
}

/// Completes when a head has taken too long.
struct Waiting {
    timer: HeadTimer,
    begun: bool,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Sleep for Waiting {}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.begun && self.timer.progress.begun() {
            self.begun = true;
            let deadline = tokio::time::Instant::now() + self.timer.patience.head;
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// Where the head ends when the text comes in pieces cut at these places.
    fn end(text: &[u8], cuts: &[usize]) -> Option<u64> {
        let (mut lines, mut from) = (Lines::default(), 0);
        for to in cuts.iter().copied().chain([text.len()]) {
            if let Some(end) = lines.read(&text[from..to]) {
                return Some(from as u64 + end);
            }
            from = to;
        }
        None
    }

    proptest! {
        #[test]
        fn a_heads_end_is_where_the_parser_finds_it_however_it_is_split(
            names in vec("[a-z]{1,8}", 0..4),
            values in vec("[ -~]{0,12}", 4),
            endings in vec(any::<bool>(), 6),
            before in 0_usize..3,
            body in vec(any::<u8>(), 0..40),
            cuts in vec(any::<Index>(), 0..8),
        ) {
            let ending = |at: usize| if endings[at] { "\r\n" } else { "\n" };
            let mut text = "\r\n".repeat(before) + "GET / HTTP/1.1" + ending(0);
            for (at, (name, value)) in names.iter().zip(&values).enumerate() {
                text.extend([name, ": ", value, ending(at + 1)]);
            }
            text += ending(5);
            let head = text.len() as u64;
            let text = [text.as_bytes(), &body].concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(end(&text, &cuts), Some(head));
            let unfinished = &text[..usize::try_from(head).unwrap() - 1];
            prop_assert_eq!(end(unfinished, &[]), None);
        }

        #[test]
        fn a_connection_is_idle_exactly_when_whole_requests_have_come(
            body in vec(any::<u8>(), 0..40),
            more in 0..HEAD.len(),
            cuts in vec(any::<Index>(), 0..4),
        ) {
            let head = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len());
            let rest = [&body[..], &HEAD[..more]].concat();
            let text = [head.as_bytes(), &rest].concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let progress = Progress::default();
            progress.wait();
            prop_assert!(!progress.begun());
            let (mut from, mut called) = (0, false);
            for to in cuts.into_iter().chain([text.len()]) {
                progress.read(&text[from..to]);
                from = to;
                if !called && to >= head.len() {
                    called = true;
                    progress.complete(Some(body.len() as u64));
                }
            }
            progress.wait();
            prop_assert_eq!(progress.begun(), more > 0);
        }
    }

    #[test]
    fn after_a_chunked_body_a_connection_is_idle_unless_more_has_come() {
        let head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for (rest, begun) in [("", false), ("GET / HT", true), ("GET / HTTP/1.1\r\n", true)] {
            let progress = Progress::default();
            progress.wait();
            progress.read(head);
            progress.complete(None);
            progress.read(format!("3\r\nabc\r\n0\r\n\r\n{rest}").as_bytes());
            progress.wait();
            assert_eq!(progress.begun(), begun, "{rest:?}");
        }
    }

    #[test]
    fn requests_sent_ahead_leave_a_connection_idle_when_all_are_answered() {
        let progress = Progress::default();
        progress.wait();
        progress.read(&HEAD.repeat(3));
        for _ in 0..2 {
            progress.complete(Some(0));
            progress.wait();
        }
        progress.complete(Some(0));
        progress.wait();
        assert!(!progress.begun());
        progress.read(b"G");
        assert!(progress.begun());
    }
}
