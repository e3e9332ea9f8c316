//! What settings are made of: names, addresses to listen on, host names, lists; URLs are in [`url`].
//!
//! Owns that a setting which cannot be meant is refused while the command line is read, in words that
//! say which one, what was given, and what to write instead. Must never repeat a user name, a password
//! or a query of a URL: the words go to logs.

pub mod secrets;
pub mod url;

use std::{
    ffi::OsStr,
    fmt,
    marker::PhantomData,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use clap::{
    Arg, Command,
    builder::{TypedValueParser, ValueParserFactory},
    error::ErrorKind,
};

/// Longest host name that DNS has, in bytes.
const LONGEST_HOST: usize = 253;

/// Reads a setting whose error says itself what was given. What clap would say repeats all of the text,
/// and in a URL there may be a password.
#[derive(Debug)]
pub struct Given<T>(PhantomData<fn() -> T>);

impl<T> Given<T> {
    /// A parser of such a setting.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Given<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Given<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T> TypedValueParser for Given<T>
where
    T: FromStr<Err: fmt::Display> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let parsed = match value.to_str() {
            Some(text) => text.parse().map_err(|error: T::Err| secrets::hidden(&error.to_string())),
            None => Err("it is not UTF-8".to_owned()),
        };
        parsed.map_err(|error| {
            let text = format!("{} cannot be used: {error}\n", setting(argument));
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}

/// A setting by all of its names: whoever has set a variable does not look for a flag.
fn setting(argument: Option<&Arg>) -> String {
    let Some(argument) = argument else { return "a setting".to_owned() };
    match argument.get_env() {
        Some(variable) => format!("{argument} ({})", variable.to_string_lossy()),
        None => argument.to_string(),
    }
}

/// A name: something is written in it, and nothing that cannot be seen stands around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// A text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAName {
    /// Nothing is written in it.
    #[error("it is empty; write what is meant, or leave the setting out")]
    Empty,
    /// It would not be equal to what is meant.
    #[error("{0:?} begins or ends with white space; leave that out")]
    Space(String),
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        match text.trim() {
            "" => Err(NotAName::Empty),
            trimmed if trimmed != text => Err(NotAName::Space(text.to_owned())),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl Name {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl ValueParserFactory for Name {
    type Parser = Given<Self>;

    fn value_parser() -> Given<Self> {
        Given::new()
    }
}

/// A host as clients write it: a name, an IPv4 address, or an IPv6 address in brackets. Without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

/// A text is no host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHost {
    /// It is a name with a port.
    #[error("{0:?} has a port; write the name alone, any port is meant")]
    Port(String),
    /// It is something else.
    #[error(
        "{0:?} is not a host name; write a name such as agent.example.com, without http://, a path or a *"
    )]
    Malformed(String),
}

impl FromStr for HostName {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        if is_host(text) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        let port = text.rsplit_once(':').is_some_and(|(host, port)| {
            is_host(host) && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
        });
        let text = text.to_owned();
        Err(if port { NotAHost::Port(text) } else { NotAHost::Malformed(text) })
    }
}

impl HostName {
    /// In small letters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a client means this host. Capitals make no other name.
    pub fn is(&self, host: &str) -> bool {
        self.0.eq_ignore_ascii_case(host)
    }
}

fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    // An underscore is in no name of a host by the book, and in many that containers have.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= LONGEST_HOST && text.split('.').all(label)
}

/// Values separated by commas. An empty list is one too, which a variable without a value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl<T> ValueParserFactory for List<T>
where
    T: FromStr<Err: fmt::Display> + Clone + Send + Sync + 'static,
{
    type Parser = Given<Self>;

    fn value_parser() -> Given<Self> {
        Given::new()
    }
}

/// Reads an address to listen on.
///
/// # Errors
/// What it must look like.
pub fn socket(text: &str) -> Result<SocketAddr, String> {
    let write = "write an IP address and a port: 127.0.0.1:PORT for this machine alone, \
                 0.0.0.0:PORT for all of its addresses, [::1]:PORT with IPv6";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("the port is missing; {write}"));
    }
    if text.trim_start_matches(':').parse::<u16>().is_ok() {
        return Err(format!("the IP address is missing; {write}"));
    }
    if text
        .rsplit_once(':')
        .is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok())
    {
        return Err(format!("names are not looked up here; {write}"));
    }
    Err(write.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_something_in_it_and_nothing_around_it() {
        assert_eq!("a b".parse::<Name>().unwrap().as_str(), "a b");
        for empty in ["", " ", "\t"] {
            assert_eq!(empty.parse::<Name>(), Err(NotAName::Empty));
        }
        assert!(matches!("gate\n".parse::<Name>(), Err(NotAName::Space(_))));
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_around_it() {
        for good in ["agent", "Agent.example.com", "a_b", "10.0.0.7", "[::1]", "xn--bcher-kva"] {
            assert!(good.parse::<HostName>().unwrap().is(good), "{good}");
        }
        for wrong in [
            "",
            "*",
            "*.example",
            "a b",
            "http://a",
            "a/b",
            "a@b",
            "a..b",
            ".a",
            "-a",
            "[a]",
            "::1",
        ] {
            assert!(matches!(wrong.parse::<HostName>(), Err(NotAHost::Malformed(_))), "{wrong}");
        }
        for port in ["agent:8080", "[::1]:80"] {
            assert!(matches!(port.parse::<HostName>(), Err(NotAHost::Port(_))), "{port}");
        }
    }

    #[test]
    fn a_list_may_be_empty_and_what_is_in_it_may_not() {
        let list = |text: &str| text.parse::<List<HostName>>().map(|list| list.0.len());
        assert_eq!((list(""), list(" , "), list("a, b,")), (Ok(0), Ok(0), Ok(2)));
        assert!(list("a,http://b").is_err());
    }

    #[test]
    fn an_address_to_listen_on_that_is_none_is_refused_with_what_is_missing() {
        assert_eq!(socket("[::1]:8080").unwrap().port(), 8080);
        for (text, says) in [
            ("8080", "the IP address is missing"),
            (":8080", "the IP address is missing"),
            ("127.0.0.1", "the port is missing"),
            ("localhost:8080", "names are not looked up"),
            ("0.0.0.0:99999", "write an IP address and a port"),
            ("", "write an IP address and a port"),
        ] {
            let error = socket(text).unwrap_err();
            assert!(error.contains(says) && error.contains("127.0.0.1:PORT"), "{text}: {error}");
        }
    }

    #[test]
    fn a_setting_that_cannot_be_used_is_named_by_its_flag_and_its_variable() {
        let name = Arg::new("name").long("name").value_name("NAME").env("X_NAME_OF_A_TEST");
        let name = name.value_parser(clap::value_parser!(Name));
        let error = Command::new("x").arg(name).try_get_matches_from(["x", "--name="]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("--name <NAME> (X_NAME_OF_A_TEST) cannot be used: it is empty"),
            "{text}"
        );
    }
}
