//! Servers that stand for those of a cluster, in tests. They answer one request a connection.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

/// A request as it came: its first line and headers, in lower case, and its body.
pub(super) struct Came {
    pub(super) head: String,
    pub(super) body: String,
}

/// Answers every request at a port of loopback; gives where.
pub(super) fn serve(answer: impl Fn(&Came) -> (u16, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body).unwrap();
            let (status, said) = answer(&Came { head, body: String::from_utf8(body).unwrap() });
            let length = said.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n"
            );
            write!(stream, "{head}content-length: {length}\r\n\r\n{said}").unwrap();
        }
    });
    url
}
