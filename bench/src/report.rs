//! The table of a run: each figure beside what bounds it, and whether its aim is met.
//!
//! Owns how figures are written. Must never round a missed aim into a met one: what is compared is what
//! was measured, and not its text.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::Context as _;

/// One figure.
pub(crate) struct Figure {
    what: String,
    here: String,
    limit: String,
    aim: Option<(String, bool)>,
}

impl Figure {
    /// What was measured, and what it is.
    pub(crate) fn new(what: impl Into<String>, here: impl Into<String>) -> Self {
        Self { what: what.into(), here: here.into(), limit: String::new(), aim: None }
    }

    /// What bounds it: the same work by a library alone.
    pub(crate) fn beside(mut self, limit: impl Into<String>) -> Self {
        self.limit = limit.into();
        self
    }

    /// The same where there is something beside it.
    pub(crate) fn beside_any(self, limit: Option<impl Into<String>>) -> Self {
        match limit {
            Some(limit) => self.beside(limit),
            None => self,
        }
    }

    /// What it should be.
    pub(crate) fn aim(mut self, aim: impl Into<String>, met: bool) -> Self {
        self.aim = Some((aim.into(), met));
        self
    }
}

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Report {
    parts: Vec<(String, Vec<Figure>)>,
}

impl Report {
    /// Begins a part, and says so.
    pub(crate) fn part(&mut self, name: &str) {
        println!("\n{name}");
        self.parts.push((name.to_owned(), Vec::new()));
    }

    /// Adds a figure to the part, and prints it.
    pub(crate) fn add(&mut self, figure: Figure) {
        let Figure { what, here, limit, aim } = &figure;
        let beside = if limit.is_empty() { String::new() } else { format!("beside {limit}") };
        let aim = aim
            .as_ref()
            .map(|(aim, met)| format!("{} ({aim})", if *met { "met" } else { "MISSED" }));
        let line = format!("  {what:<68} {here:<34} {beside:<40} {}", aim.unwrap_or_default());
        println!("{}", line.trim_end());
        if let Some((_, figures)) = self.parts.last_mut() {
            figures.push(figure);
        }
    }

    /// The run as Markdown: of what, and one table.
    pub(crate) fn markdown(&self, of: &Run) -> String {
        let mut text = format!("{of}\n\n| | here | limit | aim |\n|---|---|---|---|\n");
        for (name, figures) in &self.parts {
            // An error is impossible: a String takes everything.
            let _ = writeln!(text, "| **{name}** | | | |");
            for Figure { what, here, limit, aim } in figures {
                let aim = match aim {
                    None => String::new(),
                    Some((aim, true)) => aim.clone(),
                    Some((aim, false)) => format!("{aim}: **missed**"),
                };
                let _ = writeln!(text, "| {what} | {here} | {limit} | {aim} |");
            }
        }
        text
    }
}

/// Of what a table is.
pub(crate) struct Run {
    commit: String,
    compiler: String,
    day: String,
    processor: String,
    cores: usize,
    memory: u64,
    kernel: String,
    /// Processes that wanted to run in the minute before.
    busy: String,
    seconds: u64,
}

impl Run {
    /// Looks at this machine, before anything is measured.
    ///
    /// # Errors
    /// When it is not Linux.
    pub(crate) fn here(commit: &str, compiler: &str, seconds: u64) -> anyhow::Result<Self> {
        let field = |file: &str, name: &str| -> anyhow::Result<String> {
            let text = read(file)?;
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()));
            Ok(value.unwrap_or_else(|| "unknown".to_owned()))
        };
        let memory = field("/proc/meminfo", "MemTotal")?;
        let busy = read("/proc/loadavg")?;
        Ok(Self {
            commit: commit.to_owned(),
            compiler: compiler.to_owned(),
            day: jiff::Zoned::now().date().to_string(),
            processor: field("/proc/cpuinfo", "model name")?,
            cores: std::thread::available_parallelism()?.get(),
            memory: memory.trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024 / 1024,
            // Without what whoever has built it calls it.
            kernel: read("/proc/sys/kernel/osrelease")?
                .split(['-', '\n'])
                .next()
                .unwrap_or_default()
                .to_owned(),
            busy: busy.split(' ').next().unwrap_or_default().to_owned(),
            seconds,
        })
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { commit, compiler, day, processor, cores, memory, kernel, busy, seconds } = self;
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        write!(
            f,
            "Commit {commit}, {day}; {compiler}, {build} build; {cores} cores ({processor}), {memory} GiB, \
             Linux {kernel}; {seconds} s of load for each figure, load average before the run {busy}."
        )
    }
}

fn read(file: &str) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("{file} (is this Linux?)"))
}

/// Writes a table where the last one stands: between two comments of a page.
///
/// # Errors
/// When the page does not have them.
pub(crate) fn record(page: &Path, table: &str) -> anyhow::Result<()> {
    const MARKS: [&str; 2] = ["<!-- the last run -->\n", "<!-- end of the last run -->"];
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let parts = text.split_once(MARKS[0]).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(MARKS[1])?;
        Some((before, after))
    });
    let (before, after) =
        parts.with_context(|| format!("{} has no place for a table: {MARKS:?}", page.display()))?;
    fs::write(page, format!("{before}{}\n{table}\n{}{after}", MARKS[0], MARKS[1]))?;
    Ok(())
}

/// A number with its thousands set apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate, to the next whole one.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few millions at most, never negative"
)]
pub(crate) fn rate(number: f64) -> String {
    count(number.round() as u64)
}

/// A duration with three digits.
pub(crate) fn short(duration: Duration) -> String {
    let (number, unit) = match duration.as_secs_f64() {
        seconds if seconds >= 1.0 => (seconds, "s"),
        seconds if seconds >= 1e-3 => (seconds * 1e3, "ms"),
        seconds => (seconds * 1e6, "µs"),
    };
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.digits$} {unit}")
}

/// Kibibytes as mebibytes.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_people_read_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let times = [999, 94_000, 1_020_000, 27_300_000, 2_500_000_000].map(Duration::from_nanos);
        assert_eq!(times.map(short), ["1.00 µs", "94.0 µs", "1.02 ms", "27.3 ms", "2.50 s"]);
        assert_eq!(mebibytes(11_356), "11.1 MiB");
    }

    #[test]
    fn a_table_takes_the_place_of_the_last_and_nothing_else() {
        let page = std::env::temp_dir().join(format!("hitl-bench-page-{}", std::process::id()));
        let around = |table: &str| {
            format!("# A page\n<!-- the last run -->\n{table}<!-- end of the last run -->\nmore\n")
        };
        fs::write(&page, around("old\n")).unwrap();
        record(&page, "new").unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), around("\nnew\n"));
        record(&page, "newer").unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), around("\nnewer\n"));
        fs::write(&page, "no place\n").unwrap();
        assert!(record(&page, "lost").unwrap_err().to_string().contains("no place for a table"));
        assert_eq!(fs::read_to_string(&page).unwrap(), "no place\n");
        fs::remove_file(page).unwrap();
    }

    #[test]
    fn a_missed_aim_is_said_and_a_met_one_is_not_dressed_up() {
        let mut report = Report::default();
        report.part("service");
        report.add(Figure::new("calls", "1").beside("2").aim("at least 1", true));
        report.add(Figure::new("memory", "9 MiB").aim("under 8 MiB", false));
        let run = Run::here("abc", "rustc 1", 4).unwrap();
        let text = report.markdown(&run);
        assert!(text.contains("| calls | 1 | 2 | at least 1 |\n"), "{text}");
        assert!(text.contains("| memory | 9 MiB |  | under 8 MiB: **missed** |\n"), "{text}");
        assert!(text.starts_with("Commit abc, 20"), "{text}");
    }
}
