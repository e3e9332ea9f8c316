//! `up`, from options to what is shown at its end; and playing the scenes against it.

use std::{
    env, fs, future::Future, io::IsTerminal as _, process::ExitCode, sync::Arc, time::Instant,
};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    lab::{Place, Record},
    options::{Part, UpArgs},
    plan::Plan,
    platform::Platform,
    preflight,
    run::{self, Failure},
    status,
    steps::Lab,
};

/// How a command ends that was interrupted, as shells count.
const INTERRUPTED: u8 = 130;

/// The environment's name for the model's key, and a secrets file's.
const KEY: &str = "ANTHROPIC_API_KEY";

/// Brings the lab up.
pub(crate) async fn up(place: Place, args: UpArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let own = place.source("kind/platform.toml");
    let platform = Platform::read(&own, args.platform.as_deref(), &args.keys)?;
    let key = key(&args)?;
    let plan = Plan::of(args.gateway, &args.skip, args.preload.is_some());
    let _lock = place.lock()?;
    let record = args.record(&plan, key.is_none());
    let known = Record::read(&place);
    if let Some(known) = &known {
        same_lab(known, &record)?;
    }
    preflight::look(&place, &args, &platform, &plan).await?;
    place.make()?;
    if record.scripted {
        println!("No {KEY}: a scripted model answers the lab's prompts by rule.");
    }
    for (part, why) in &plan.left_out {
        println!("Left out: {part}, {why}.");
    }
    for warning in platform.untested(&own)? {
        println!("{warning}");
    }
    let lab = Arc::new(Lab::new(place.clone(), args, platform, record.clone(), key, known));
    let acting = Arc::clone(&lab);
    let interrupted = interruption()?;
    let done =
        run::run(&plan, move |step, progress| Arc::clone(&acting).act(step, progress), interrupted)
            .await;
    let done = match done {
        Ok(done) => done,
        Err(Failure::Interrupted) => {
            eprintln!(
                "\nInterrupted. What was done is kept: `cargo xtask up` goes on, `cargo xtask teardown` removes it."
            );
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Err(failure) => {
            bail!(
                "{failure}\n\nWhat was done is kept: `cargo xtask up` goes on once this is mended."
            );
        }
    };
    match done.changed.as_slice() {
        [] => println!("\nChanged: nothing."),
        changed => println!(
            "\nChanged:\n{}",
            changed.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
        ),
    }
    // Written down anew: parts may have come to it.
    record.write(&place)?;
    let status = status::look(&record, lab.cluster().await?).await?;
    println!("{}", status::screen(&status, std::io::stdout().is_terminal()));
    println!("  kubectl and helm: export KUBECONFIG={}", place.kept("kubeconfig").display());
    println!(
        "Up in {:.1} s. `cargo xtask scenes` plays it, `cargo xtask teardown` removes it.",
        begun.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// What an `up` must not make of a lab that is up: its gateway and its chat have one place each.
fn same_lab(known: &Record, asked: &Record) -> anyhow::Result<()> {
    let begin = "take it down first (`cargo xtask teardown`), or set HITL_LAB to another folder for a second lab";
    if known.name != asked.name {
        bail!("the lab that is known here is the cluster {:?}: {begin}", known.name);
    }
    if known.gateway != asked.gateway {
        bail!("the lab is up with another gateway: {begin}");
    }
    if known.has(Part::Kagent) && !asked.has(Part::Kagent)
        || known.has(Part::Agents) && asked.has(Part::Kagent) && !known.has(Part::Kagent)
    {
        bail!("the lab is up with another chat, with or without kagent: {begin}");
    }
    Ok(())
}

/// Ends when somebody wants it to: Ctrl-C, or SIGTERM.
fn interruption() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("no handler of signals")?;
    let mut int = signal(SignalKind::interrupt()).context("no handler of signals")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// The model's key: of a file that is named, or of the environment.
fn key(args: &UpArgs) -> anyhow::Result<Option<String>> {
    let Some(file) = &args.secrets_file else {
        return Ok(env::var(KEY).ok().filter(|key| !key.is_empty()));
    };
    let text =
        fs::read_to_string(file).with_context(|| format!("--secrets-file {}", file.display()))?;
    match secret(&text) {
        Some(key) => Ok(Some(key)),
        None => bail!("--secrets-file {}: no line {KEY}=… is in it", file.display()),
    }
}

/// The key out of `NAME=VALUE` lines, as shells and env files write them.
fn secret(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let line = line.trim();
        line.strip_prefix("export ")
            .unwrap_or(line)
            .trim_start()
            .strip_prefix(KEY)?
            .strip_prefix('=')
    })?;
    let value = value.trim();
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_shells_and_env_files_write_it() {
        for text in [
            "ANTHROPIC_API_KEY=sk-1",
            "# mine\nexport ANTHROPIC_API_KEY='sk-1'\n",
            "OTHER=x\n ANTHROPIC_API_KEY=\"sk-1\" \n",
        ] {
            assert_eq!(secret(text).as_deref(), Some("sk-1"), "{text}");
        }
        for text in ["", "ANTHROPIC_API_KEY=", "XANTHROPIC_API_KEY=sk", "ANTHROPIC_API_KEYS=sk"] {
            assert_eq!(secret(text), None, "{text}");
        }
    }
}
