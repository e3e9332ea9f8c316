//! What the binary does beside serving, as it is typed.

// The documentation of the fields is the text of `--help`, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Subcommand};
use hitl_api::{Head, PreapprovalId, RequestId};
use hitl_service::given::{secrets, url::BaseUrl};
use jiff::SignedDuration;

use crate::store::database::{Database, DatabaseParser, PostgresArgs};

/// What the binary does beside serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Look at the audit, offline
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Move everything from a file to a PostgreSQL, the chain of the audit unbroken
    ///
    /// For a gate that is stopped. The PostgreSQL must hold nothing of a gate yet. All of it moves, or
    /// nothing; then the file is marked as moved, and no gate opens it any more: an approval must
    /// not be there twice.
    Migrate {
        /// The file: sqlite://PATH
        #[arg(long, value_name = "DATABASE", value_parser = DatabaseParser)]
        from: Database,

        /// The PostgreSQL: postgres://USER@HOST/NAME
        #[arg(long, value_name = "DATABASE", value_parser = DatabaseParser)]
        to: Database,

        /// How PostgreSQL is reached
        #[command(flatten)]
        postgres: PostgresArgs,
    },
    /// Copy a gate's SQLite file, whether or not the gate runs
    ///
    /// The copy is the file as it was at one moment, complete in itself, and has its name only when it is
    /// whole, durable and its audit verified. Note the head that is printed elsewhere: `restore --head`
    /// holds the copy against it. The key of receipts, reviewers, rules and webhooks are files of their
    /// own, and not in it.
    Backup {
        /// The gate's database
        #[command(flatten)]
        database: DatabaseArgs,

        /// The copy, where nothing may be yet; - is standard output
        #[arg(value_name = "FILE", value_parser = secrets::file())]
        to: PathBuf,
    },
    /// Put a backup in the place of a gate's SQLite file, for a gate that is stopped
    ///
    /// The backup is verified first. Approvals that nobody had used when it was made lapse, and
    /// pre-approvals end, each with its row of the audit: since then they may have been used, and none must
    /// be used twice. Requests that waited for a decision wait again.
    Restore {
        /// The gate's database
        #[command(flatten)]
        database: DatabaseArgs,

        /// Put aside what is there, under a name that says when
        #[arg(long)]
        replace: bool,

        /// A head noted earlier, as `backup` prints it; it must be among the rows of the backup
        #[arg(long, value_name = "SEQ:HASH")]
        head: Option<NotedHead>,

        /// The backup; - is standard input
        #[arg(value_name = "FILE", value_parser = secrets::file())]
        from: PathBuf,
    },
    /// Let approvals lapse and end pre-approvals, in a database that has come back from a backup
    ///
    /// `restore` does so by itself. This is for a PostgreSQL that was restored with its own tools, and for a
    /// file or a volume that was put back by hand; before the first gate starts on it. Each approval has its
    /// row of the audit. Requests that waited for a decision wait again.
    Recall {
        /// The gate's database
        #[command(flatten)]
        database: DatabaseArgs,

        /// How PostgreSQL is reached
        #[command(flatten)]
        postgres: PostgresArgs,
    },
    /// Print the public half of a key of receipts, as a JWK set for --published-keys or a tool server
    PublicKey {
        /// The private key (PKCS#8 PEM, Ed25519)
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Check rules, ask what they say to a call, try them on the past
    #[command(subcommand)]
    Rules(RulesCommand),
    /// What a reviewer does, over the admin API of a running gate
    #[command(flatten)]
    Review(ReviewCommand),
}

/// What can be done with rules.
#[derive(Clone, Debug, Subcommand)]
pub enum RulesCommand {
    /// Read a file as the gate would, and list its rules; fails at the first that is wrong
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Say which rules match a call, and why
    ///
    /// The call is a request of a running gate, at the moment it came, or one that is written down.
    Explain {
        /// The rules
        #[arg(long, env = "HITL_RULES", value_name = "FILE")]
        rules: PathBuf,

        /// A request of the gate
        #[arg(value_name = "ID", required_unless_present = "call", conflicts_with = "call")]
        id: Option<RequestId>,

        /// A call: JSON with tool, arguments, server, route, requester, address, headers, time
        #[arg(long, value_name = "FILE")]
        call: Option<PathBuf>,

        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,
    },
    /// Say what rules would have asked for in the past, beside what was asked for
    Replay {
        /// The rules
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// How many days back
        #[arg(long, default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3660))]
        days: u32,

        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,
    },
    /// Print the JSON schema of the file
    Schema,
}

/// What a reviewer does on a command line.
#[derive(Clone, Debug, Subcommand)]
pub enum ReviewCommand {
    /// List what waits for a decision, oldest first
    Pending {
        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,

        /// Print the requests as the API gives them, one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Approve a request: this one call may run, once
    Approve {
        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,

        /// The request
        #[arg(value_name = "ID")]
        id: RequestId,

        /// Why; kept in the audit
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
    },
    /// Deny a request; the agent is told why, word for word
    Reject {
        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,

        /// The request
        #[arg(value_name = "ID")]
        id: RequestId,

        /// Why; kept in the audit and told to the agent
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
    },
    /// Approve calls like a request, before they come
    ///
    /// Of the same requester, for the same route, server and tool, whose arguments meet a condition.
    Preapprove {
        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,

        /// The request whose like is approved
        #[arg(value_name = "ID")]
        id: RequestId,

        /// What must be true of the arguments, in CEL; these very arguments unless given
        #[arg(long, value_name = "CEL")]
        when: Option<String>,

        /// For how many calls
        #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,

        /// For how long, for example 30m or 4h
        #[arg(long = "for", value_name = "TIME")]
        lasts: SignedDuration,

        /// Why; kept in the audit with each of the calls
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// List what reviewers have approved beforehand, and how often it was used
    Preapprovals {
        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,

        /// Print them as the API gives them, one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// End a pre-approval, anybody's: no call uses it from now on
    EndPreapproval {
        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,

        /// The pre-approval
        #[arg(value_name = "ID")]
        id: PreapprovalId,
    },
    /// List messages to webhooks that did not arrive and are not sent again by themselves
    DeadLetters {
        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,
    },
    /// Send dead letters again: one, or all of them
    Redeliver {
        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,

        /// The message; all of them unless given
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
    /// Print what happens as it happens, until interrupted
    Watch {
        /// The gate, and who asks it
        #[command(flatten)]
        desk: DeskArgs,

        /// Begin behind this row of the audit, not now
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,

        /// Print the rows as the API gives them, one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// Which database.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// The gate's database, as the gate has it
    #[arg(
        long,
        env = "HITL_DATABASE",
        hide_env_values = true,
        default_value = "hitl.db",
        value_name = "DATABASE",
        value_parser = DatabaseParser
    )]
    pub database: Database,
}

/// Which gate, and as whom.
#[derive(Args, Clone, Debug)]
pub struct DeskArgs {
    /// The gate's admin API
    #[arg(
        long,
        env = "HITL_ADMIN_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8081",
        value_name = "URL"
    )]
    pub admin: BaseUrl,

    /// File with your reviewer's token; else it is taken from HITL_REVIEWER_TOKEN
    ///
    /// There is no flag for the token itself: other users of a machine can read command lines.
    #[arg(long, env = "HITL_REVIEWER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// What can be done with an audit.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Verify the chain of a database or an export, and name the first broken row
    ///
    /// Ends with 0 when every row follows from the one before, and prints the head: note it
    /// elsewhere, and a tail that is cut off later shows against it.
    Verify {
        /// A gate's database (a file, or postgres://…), or an export (one JSON object a line)
        #[arg(value_name = "DATABASE", value_parser = DatabaseParser)]
        source: Database,

        /// How PostgreSQL is reached
        #[command(flatten)]
        postgres: PostgresArgs,

        /// A head noted earlier, as SEQ:HASH; it must be among the rows
        #[arg(long, value_name = "SEQ:HASH")]
        head: Option<NotedHead>,
    },
    /// Print every row of a database, one JSON object a line
    Export {
        /// A gate's database: a file, or postgres://…
        #[arg(value_name = "DATABASE", value_parser = DatabaseParser)]
        source: Database,

        /// How PostgreSQL is reached
        #[command(flatten)]
        postgres: PostgresArgs,
    },
}

/// A head of the audit, as somebody has noted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedHead(pub Head);

impl FromStr for NotedHead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (seq, hash) = text.split_once(':').ok_or("write it as SEQ:HASH")?;
        let seq = seq.parse().map_err(|_| format!("{seq:?} is not a position"))?;
        if hash.len() != 64 || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("the hash is not a SHA-256 in hex".to_owned());
        }
        Ok(Self(Head { seq, hash: hash.to_ascii_lowercase() }))
    }
}
