//! Whether settings fit each other, as far as the command line's own rules cannot say it.
//!
//! Must never refuse a command for a setting of the serving gate: they share their variables.

use std::net::SocketAddr;

use super::Config;
use crate::store::database::{Database, PostgresArgs};

/// A setting that would be passed over in silence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// One of a PostgreSQL's, beside a file.
    #[error(
        "{setting} (or {variable}) is about a PostgreSQL, and --database is the file {file}: name the \
         PostgreSQL with --database postgres://USER@HOST/NAME, or leave {setting} out"
    )]
    File {
        /// As it is written on the command line.
        setting: &'static str,
        /// As it is called in the environment.
        variable: &'static str,
        /// The file.
        file: String,
    },
    /// One address for two things.
    #[error("{0} and {1} are the same address, {2}: give each a port of its own")]
    SameAddress(&'static str, &'static str, SocketAddr),
    /// Certificates, where none is asked for.
    #[error(
        "--database-ca (or HITL_DATABASE_CA) says who vouches for the PostgreSQL, and nobody is asked: it is \
         reached in plain text, since its URL says sslmode=disable, or names this machine and no sslmode. \
         Write sslmode=verify-full in the URL, or leave --database-ca out"
    )]
    Plain,
}

impl Config {
    /// Whether the settings of a gate that serves fit each other.
    ///
    /// # Errors
    /// See [`Misfit`].
    pub fn check(&self) -> Result<(), Misfit> {
        let (grpc, admin) = (self.grpc_listen(), self.admin_listen());
        let status = self.status_listen.map(|status| ("--status-listen", status));
        let all = [Some(("--grpc-listen", grpc)), Some(("--admin-listen", admin)), status];
        let all: Vec<_> = all.into_iter().flatten().filter(|(_, at)| at.port() != 0).collect();
        for (number, (other, address)) in all.iter().enumerate() {
            let before = all.iter().take(number);
            if let Some((one, _)) = before.into_iter().find(|(_, before)| before == address) {
                return Err(Misfit::SameAddress(one, other, *address));
            }
        }
        let PostgresArgs { database_password_file, database_ca, .. } = &self.postgres;
        let file = match &self.database {
            Database::Sqlite(file) => file,
            Database::Postgres(url) if url.is_plain() && database_ca.is_some() => {
                return Err(Misfit::Plain);
            }
            Database::Postgres(_) => return Ok(()),
        };
        for (given, setting, variable) in [
            (database_password_file, "--database-password-file", "HITL_DATABASE_PASSWORD_FILE"),
            (database_ca, "--database-ca", "HITL_DATABASE_CA"),
        ] {
            if given.is_some() {
                let file = file.display().to_string();
                return Err(Misfit::File { setting, variable, file });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn misfit(words: &[&str]) -> Option<String> {
        let words = [&["x"], words].concat();
        Config::try_parse_from(words).unwrap().check().err().map(|misfit| misfit.to_string())
    }

    #[test]
    fn what_is_about_a_postgresql_is_not_passed_over_where_there_is_a_file() {
        let text = misfit(&["--database-ca", "ca.pem"]).unwrap();
        assert!(
            text.contains("--database-ca (or HITL_DATABASE_CA)") && text.contains("hitl.db"),
            "{text}"
        );
        let text =
            misfit(&["--database", "sqlite://g.db", "--database-password-file", "p"]).unwrap();
        assert!(text.contains("--database-password-file") && text.contains("g.db"), "{text}");
        let url = "postgres://gate@db.example/hitl";
        let fits = ["--database", url, "--database-ca", "c", "--database-password-file", "p"];
        assert_eq!(misfit(&fits), None);
        for url in
            ["postgres://gate@db.example/hitl?sslmode=disable", "postgres://gate@127.0.0.1/hitl"]
        {
            let text = misfit(&["--database", url, "--database-ca", "c"]).unwrap();
            assert!(text.contains("reached in plain text"), "{text}");
        }
        let url = "postgres://gate@127.0.0.1/hitl?sslmode=verify-full";
        assert_eq!(misfit(&["--database", url, "--database-ca", "c"]), None);
        assert_eq!(misfit(&[]), None);
        let text = misfit(&["--http-port", "9001", "--grpc-port", "9001"]).unwrap();
        assert!(
            text.starts_with("--grpc-listen and --admin-listen are the same address"),
            "{text}"
        );
        let text =
            misfit(&["--status-listen", "127.0.0.1:9001", "--grpc-listen", "127.0.0.1:9001"]);
        assert!(text.unwrap().starts_with("--grpc-listen and --status-listen"));
        let free = ["--status-listen=127.0.0.1:0", "--grpc-port=0", "--http-port=0"];
        assert_eq!(misfit(&free), None);
    }
}
