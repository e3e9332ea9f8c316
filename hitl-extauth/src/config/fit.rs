//! Whether settings fit each other, as far as the command line's own rules cannot say it.
//!
//! Must never refuse a command for a setting of the serving gate: they share their variables.

use super::Config;
use crate::store::database::{Database, PostgresArgs};

/// A setting that would be passed over in silence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{setting} (or {variable}) is about a PostgreSQL, and --database is the file {file}: name the PostgreSQL \
     with --database postgres://USER@HOST/NAME, or leave {setting} out"
)]
pub struct Misfit {
    setting: &'static str,
    variable: &'static str,
    file: String,
}

impl Config {
    /// Whether the settings of a gate that serves fit each other.
    ///
    /// # Errors
    /// See [`Misfit`].
    pub fn check(&self) -> Result<(), Misfit> {
        let Database::Sqlite(file) = &self.database else { return Ok(()) };
        let PostgresArgs { database_password_file, database_ca, .. } = &self.postgres;
        for (given, setting, variable) in [
            (database_password_file, "--database-password-file", "HITL_DATABASE_PASSWORD_FILE"),
            (database_ca, "--database-ca", "HITL_DATABASE_CA"),
        ] {
            if given.is_some() {
                return Err(Misfit { setting, variable, file: file.display().to_string() });
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
        assert_eq!(misfit(&[]), None);
    }
}
