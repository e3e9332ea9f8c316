//! The settings of a service as a table, made from the command line that reads them.
//!
//! Owns the table's form, so that documentation and program cannot drift apart: each service has a
//! test that compares its own.

use std::{env, fs, path::Path};

use clap::{ArgAction, Command};

/// A table of all settings of a command: flag, variable, default, and the first sentence about each.
pub fn table(command: &Command) -> String {
    let mut table = "| flag | variable | default | |\n|---|---|---|---|\n".to_owned();
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let Some(flag) = argument.get_long().filter(|flag| !["help", "version"].contains(flag))
        else {
            continue;
        };
        let variable = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
        let takes = !matches!(argument.get_action(), ArgAction::SetTrue);
        let shown = takes && !argument.is_hide_default_value_set();
        let defaults = argument.get_default_values().iter().filter(|_| shown);
        let defaults: Vec<_> = defaults
            .map(|value| value.to_string_lossy().into_owned())
            .filter(|value| !value.is_empty())
            .map(|value| format!("`{value}`"))
            .collect();
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let (variable, defaults) = (variable.unwrap_or_default(), defaults.join(", "));
        for cell in [&format!("`--{flag}`"), &variable, &defaults, &help] {
            table.push_str("| ");
            table.push_str(cell);
            table.push_str(if cell.is_empty() { "" } else { " " });
        }
        table.push_str("|\n");
    }
    table
}

/// Whether a file holds this very table between `<!-- settings NAME -->` and `<!-- end -->`. With
/// `INSTA_UPDATE=always` it is written there first.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check(file: &Path, name: &str, table: &str) -> Result<(), String> {
    check_part(file, &format!("settings {name}"), table)
}

/// The same for any part of a file that is made from the code: it stands between `<!-- NAME -->` and
/// `<!-- end -->`.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check_part(file: &Path, name: &str, table: &str) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let begin = format!("<!-- {name} -->\n");
    let (before, rest) = text.split_once(&begin).ok_or(format!("there is no {begin:?}"))?;
    let (held, after) = rest.split_once("<!-- end -->").ok_or("the table has no end")?;
    if held == table {
        return Ok(());
    }
    if env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        let text = format!("{before}{begin}{table}<!-- end -->{after}");
        return fs::write(file, text).map_err(|error| error.to_string());
    }
    Err(format!("{name}: the table is another by now: INSTA_UPDATE=always writes it"))
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn a_setting_is_a_row_with_what_there_is_to_know() {
        let command = Command::new("x").arg(
            Arg::new("listen")
                .long("listen")
                .env("X_LISTEN")
                .default_value("1")
                .help("Where | how"),
        );
        let command = command.arg(Arg::new("on").long("on").action(ArgAction::SetTrue).help("On"));
        let table = table(&command);
        assert!(
            table.ends_with(
                "| `--listen` | `X_LISTEN` | `1` | Where \\| how |\n| `--on` | | | On |\n"
            ),
            "{table}"
        );
    }

    #[test]
    fn a_table_that_is_not_the_codes_is_noticed() {
        let file = env::temp_dir().join(format!("settings-{}.md", std::process::id()));
        fs::write(&file, "a\n<!-- settings x -->\nold\n<!-- end -->\nb\n").unwrap();
        assert_eq!(check(&file, "x", "old\n"), Ok(()));
        assert!(check(&file, "y", "old\n").unwrap_err().contains("there is no"));
        let updates = env::var("INSTA_UPDATE").is_ok_and(|update| update == "always");
        assert_eq!(check(&file, "x", "new\n").is_ok(), updates);
        fs::remove_file(file).unwrap();
    }
}
