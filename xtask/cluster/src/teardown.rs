//! Taking the lab down: the cluster, its images here, and what is kept of it.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::bail;

use crate::{
    images,
    kind::Kind,
    lab::{Place, Record},
    options::TeardownArgs,
};

/// Takes it down; one that is not there is fine.
pub(crate) async fn teardown(place: &Place, args: &TeardownArgs) -> anyhow::Result<ExitCode> {
    let written = Record::read(place).map(|record| record.name);
    let Some(name) = args.name.clone().or(written) else {
        println!(
            "No lab on kind is known here; `--name NAME` takes down one that was brought up elsewhere."
        );
        return Ok(ExitCode::SUCCESS);
    };
    let kind = Kind::new(&name);
    if kind.exists().await? {
        if !args.yes && !agreed(&name)? {
            println!("Left as it is.");
            return Ok(ExitCode::FAILURE);
        }
        println!("deleting the cluster {name}, with everything in it …");
        kind.delete().await?;
    } else {
        println!("There is no cluster {name}.");
    }
    let removed = images::remove().await?;
    place.forget();
    println!("Removed: the cluster, {removed} images, and what was kept of it here.");
    Ok(ExitCode::SUCCESS)
}

/// Asks on a terminal; elsewhere the flag must say it.
fn agreed(name: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("this would delete the cluster {name} with its databases and audit: say --yes");
    }
    print!("Delete the cluster {name}, with its databases and audit? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
