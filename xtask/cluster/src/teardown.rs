//! Taking the lab down: the cluster, its images here, and what is kept of it.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::bail;

use crate::{
    images,
    kind::{Kind, Owner},
    lab::{Place, Record},
    options::{DEFAULT_NAME, TeardownArgs},
};

/// Takes it down; one that is not there is fine.
pub(crate) async fn teardown(place: &Place, args: &TeardownArgs) -> anyhow::Result<ExitCode> {
    let _lock = place.lock()?;
    let written = Record::read(place).map(|record| record.name);
    // One whose making was interrupted is not written down yet, and has the name that `up` gives.
    let name = args.name.clone().or(written.clone()).unwrap_or_else(|| DEFAULT_NAME.to_owned());
    let kind = Kind::new(&name);
    let mine = match kind.owner().await? {
        Owner::None => {
            println!("There is no cluster {name}.");
            written.as_ref().is_none_or(|written| *written == name)
        }
        Owner::Stranger => bail!(
            "the cluster {name} was not made by a lab, so it is left alone: `kind delete cluster --name {name}` deletes it"
        ),
        Owner::Lab(folder) => {
            let mine = folder == place.kept("owner");
            if !mine && args.name.is_none() {
                bail!(
                    "the cluster {name} belongs to the lab in {}: --name {name} takes it down nevertheless",
                    folder.display()
                );
            }
            if !args.yes && !agreed(&name)? {
                println!("Left as it is.");
                return Ok(ExitCode::FAILURE);
            }
            println!("deleting the cluster {name}, with everything in it …");
            kind.delete(&place.kept("kubeconfig")).await?;
            println!("Deleted: the cluster {name}.");
            mine
        }
    };
    if mine {
        place.forget();
        let removed = images::remove().await?;
        println!("Removed: {removed} images, and what was kept of the lab here.");
    }
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
