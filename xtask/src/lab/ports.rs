//! Ports: whether one is free, and who has it.

use std::{fs, net::TcpListener, path::Path};

use anyhow::bail;

/// Makes sure that each is a port of its own: of two services with one port the second ends, and the
/// first answers in its place.
///
/// # Errors
/// Names the two, and how to choose another.
pub(super) fn distinct(ports: &[(u16, &str, &str)]) -> anyhow::Result<()> {
    for (at, (port, what, flag)) in ports.iter().enumerate() {
        if *port == 0 {
            bail!("port 0 for {what} is none that others would find: choose one by {flag}");
        }
        if let Some((_, other, _)) = ports.iter().take(at).find(|(other, ..)| other == port) {
            bail!(
                "port {port} is for {other} and cannot be for {what}, too: choose another by {flag}"
            );
        }
    }
    Ok(())
}

/// Makes sure that nobody listens on a port of loopback.
///
/// # Errors
/// Names the process that does, where the system says.
pub(super) fn free(port: u16, what: &str, flag: &str) -> anyhow::Result<()> {
    let Err(error) = TcpListener::bind(("127.0.0.1", port)) else { return Ok(()) };
    let by = match holder(port) {
        Some(holder) => format!("{holder} has it"),
        None => error.to_string(),
    };
    bail!("port {port} for {what} is taken: {by}. Stop that, or choose another by {flag}")
}

/// The process that listens on a port, as Linux tells it: its name and id.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<_> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| inode(line, port)).collect::<Vec<_>>())
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let has = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|link| inodes.iter().any(|inode| link == Path::new(&format!("socket:[{inode}]"))));
        if has {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid})", name.trim()));
        }
    }
    None
}

/// The inode of a socket that listens on a port, if this line of the table is one.
fn inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (_, hex) = local.rsplit_once(':')?;
    // 0A: it listens.
    let listens = *state == "0A" && u16::from_str_radix(hex, 16) == Ok(port);
    listens.then(|| (*inode).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_a_port_of_its_own() {
        let of =
            |chat, queue| [(chat, "the chat", "--chat-port"), (queue, "the queue", "--queue-port")];
        distinct(&of(8080, 8090)).unwrap();
        let error = distinct(&of(8090, 8090)).unwrap_err().to_string();
        assert!(error.contains("port 8090 is for the chat and cannot be for the queue"), "{error}");
        assert!(error.contains("--queue-port"), "{error}");
        assert!(distinct(&of(8080, 0)).unwrap_err().to_string().contains("port 0"));
    }

    #[test]
    fn a_port_that_is_taken_is_said_to_be_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = free(port, "the chat", "--chat-port").unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} for the chat is taken")), "{error}");
        assert!(error.contains("--chat-port"), "{error}");
        if Path::new("/proc/net/tcp").exists() {
            assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        }
        drop(listener);
        // A program that another test is about to start has a copy until it is started.
        let mut tries = 0..500;
        while let Err(error) = free(port, "the chat", "--chat-port") {
            assert!(tries.next().is_some(), "{error}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
