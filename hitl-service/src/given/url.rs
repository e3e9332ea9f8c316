//! URLs that settings name: where another program is, or where this one is found.
//!
//! Owns what such a URL may have in it. Must never repeat a user name, a password or a query in an
//! error, and never say whether an address answers.

use std::{fmt, marker::PhantomData, str::FromStr};

use clap::builder::ValueParserFactory;
use url::{ParseError, Url};

use super::Given;

/// Paths are put behind it: it has no query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {}

/// It is asked as it stands: it may have a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {}

/// A site as browsers know it: scheme, host and port, and nothing behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {}

/// What a URL of a kind may have behind its host.
pub trait Kind: Clone + fmt::Debug + Send + Sync + 'static {
    /// A query, behind `?`.
    const QUERY: bool;
    /// A path other than `/`.
    const PATH: bool;
}

impl Kind for Base {
    const QUERY: bool = false;
    const PATH: bool = true;
}

impl Kind for Endpoint {
    const QUERY: bool = true;
    const PATH: bool = true;
}

impl Kind for Site {
    const QUERY: bool = false;
    const PATH: bool = false;
}

/// A URL with http or https, a host, and no user name or password. Its query may be a secret: `Display`
/// and `Debug` leave it out.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl<K>(Url, PhantomData<K>);

/// What paths are put behind.
pub type BaseUrl = HttpUrl<Base>;

/// What is asked as it stands.
pub type EndpointUrl = HttpUrl<Endpoint>;

/// Where people find a site.
pub type SiteUrl = HttpUrl<Site>;

/// Why a text is no such URL. What is shown of it has no user name, password or query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAUrl {
    /// Nothing is there.
    #[error("it is empty; write http://HOST:PORT or https://HOST, or leave the setting out")]
    Empty,
    /// It does not begin as a URL does.
    #[error("{0:?} does not say how it is reached; put http:// or https:// in front")]
    Relative(String),
    /// It begins like a URL for something else.
    #[error("{0:?} is neither http nor https; write http://HOST:PORT or https://HOST")]
    Scheme(String),
    /// Who asks is not said in an address: addresses are logged.
    #[error(
        "{0:?} has a user name or a password in it, which would be seen wherever it is shown; leave \
         them out, and write an at sign that belongs to the path as %40"
    )]
    Credentials(String),
    /// A query where paths are put behind.
    #[error("{0:?} has a query, behind which nothing can be put; leave out what begins with ?")]
    Query(String),
    /// A fragment is never sent.
    #[error("{0:?} has a fragment, which no server is told; leave out what begins with #")]
    Fragment(String),
    /// A path where there is none.
    #[error("{0:?} has a path, and this is found at the root of its host alone; leave it out")]
    Path(String),
    /// A space or a line break that nobody sees.
    #[error("{0:?} has white space in it; leave that out")]
    Space(String),
    /// It is malformed.
    #[error("{0:?} is no URL ({1}); write http://HOST:PORT or https://HOST")]
    Malformed(String, ParseError),
}

impl<K: Kind> FromStr for HttpUrl<K> {
    type Err = NotAUrl;

    fn from_str(text: &str) -> Result<Self, NotAUrl> {
        let shown = || shown(text);
        if text.trim().is_empty() {
            return Err(NotAUrl::Empty);
        }
        // Those who parse URLs pass over some of it, and others do not.
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(NotAUrl::Space(shown()));
        }
        // `localhost:8081` would be a URL whose scheme is localhost.
        let Some((scheme, _)) = text.split_once("://") else {
            return Err(NotAUrl::Relative(shown()));
        };
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(NotAUrl::Scheme(shown()));
        }
        // Wherever it is: where a password has a `/`, a `?` or a `#` in it, its end is elsewhere.
        if text.contains('@') {
            return Err(NotAUrl::Credentials(shown()));
        }
        let url = Url::parse(text).map_err(|error| NotAUrl::Malformed(shown(), error))?;
        if url.fragment().is_some() {
            return Err(NotAUrl::Fragment(shown()));
        }
        if url.query().is_some() && !K::QUERY {
            return Err(NotAUrl::Query(shown()));
        }
        if url.path() != "/" && !K::PATH {
            return Err(NotAUrl::Path(shown()));
        }
        Ok(Self(url, PhantomData))
    }
}

/// A URL as it may be logged: without user name, password, query and fragment.
pub fn loggable(url: &Url) -> String {
    let mut shown = url.clone();
    // Fails for a URL that has none.
    let _ = shown.set_username("").and_then(|()| shown.set_password(None));
    let query = shown.query().is_some();
    shown.set_query(None);
    shown.set_fragment(None);
    if query { format!("{shown}?…") } else { shown.into() }
}

/// What another library says, without the query of the URL that it was about.
pub fn without_query(said: &str, url: &Url) -> String {
    match url.query().filter(|query| !query.is_empty()) {
        Some(query) => said.replace(query, "…"),
        None => said.to_owned(),
    }
}

/// A text without what may be secret in it.
fn shown(text: &str) -> String {
    let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let (begin, rest) = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (format!("{scheme}://"), rest),
        _ => (String::new(), text),
    };
    // Where a password holds a `?` or a `/`, too: all of it up to the last `@`.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("…@", rest),
        None => ("", rest),
    };
    let end = rest.find(['?', '#']);
    let (rest, more) = match end {
        Some(at) => (rest.split_at(at).0, "…"),
        None => (rest, ""),
    };
    format!("{begin}{user}{rest}{more}")
}

impl<K> HttpUrl<K> {
    /// The URL.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl<K> From<HttpUrl<K>> for Url {
    fn from(url: HttpUrl<K>) -> Self {
        url.0
    }
}

impl<K> fmt::Display for HttpUrl<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&loggable(&self.0))
    }
}

impl<K> fmt::Debug for HttpUrl<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K: Kind> ValueParserFactory for HttpUrl<K> {
    type Parser = Given<Self>;

    fn value_parser() -> Given<Self> {
        Given::new()
    }
}

/// Who signs tokens: a URL, and compared as it was written, to the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    url: BaseUrl,
}

impl Issuer {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where it is asked.
    pub fn url(&self) -> &Url {
        self.url.url()
    }
}

impl FromStr for Issuer {
    type Err = NotAUrl;

    fn from_str(text: &str) -> Result<Self, NotAUrl> {
        Ok(Self { url: text.parse()?, text: text.to_owned() })
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ValueParserFactory for Issuer {
    type Parser = Given<Self>;

    fn value_parser() -> Given<Self> {
        Given::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrong<K: Kind>(text: &str) -> String {
        match text.parse::<HttpUrl<K>>() {
            Ok(url) => panic!("{url} is taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_address_is_http_or_https_and_is_kept_as_it_is() {
        for good in ["http://h", "https://h/", "HTTP://h:1/a/b", "http://[::1]:8081", "http://a_b"]
        {
            let url: BaseUrl = good.parse().unwrap();
            assert_eq!(url.url(), &good.parse::<Url>().unwrap());
        }
        assert!("http://h/mcp?x=y".parse::<EndpointUrl>().is_ok());
        assert_eq!("https://h:8443/".parse::<SiteUrl>().unwrap().to_string(), "https://h:8443/");
        assert_eq!("https://Id/Realm".parse::<Issuer>().unwrap().as_str(), "https://Id/Realm");
    }

    #[test]
    fn what_is_no_such_address_is_refused_with_what_to_write() {
        for (text, says) in [
            ("", "it is empty"),
            ("gate", "put http:// or https:// in front"),
            ("localhost:8081", "put http:// or https:// in front"),
            ("//h", "put http:// or https:// in front"),
            ("ftp://h", "neither http nor https"),
            ("file:///etc/passwd", "neither http nor https"),
            ("http://h/?a=b", "leave out what begins with ?"),
            ("http://h/#a", "leave out what begins with #"),
            ("http://h\n", "white space"),
            ("http://", "is no URL"),
            ("http://h:99999", "is no URL"),
        ] {
            let error = wrong::<Base>(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(wrong::<Site>("https://h/queue").contains("leave it out"));
        assert!(wrong::<Endpoint>("http://h/mcp#a").contains("has a fragment"));
    }

    #[test]
    fn what_may_be_secret_is_not_repeated() {
        for text in [
            "http://me:s3cret@h/",
            "http://s3cret@h",
            "ftp://me:s3cret@h",
            "http://me:s3cret@h:99999",
            "me:s3cret@h",
            "me:s3cret://x@h",
            "http://me:s3/c?s3cret@h ",
            "http://h/?key=s3cret",
            "http://h/#s3cret",
            "http://me:1/s3cret@h/",
            "http://me:1?s3cret@h/",
            "http://me:1#s3cret@h/",
            "http://me:s3cret@s3cret@h/",
            "http://me:s3cret\\@h/",
            "http://me:s3cret @h/",
        ] {
            let error = wrong::<Base>(text);
            assert!(!error.contains("s3cret"), "{text}: {error}");
        }
        let url: EndpointUrl = "http://h/mcp?key=s3cret".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "http://h/mcp?… http://h/mcp?…");
        let said = "error sending request for url (http://h/mcp?key=s3cret)";
        assert!(!without_query(said, url.url()).contains("s3cret"));
        let discovered = "http://me:s3cret@h/keys?s3cret#s3cret".parse().unwrap();
        assert_eq!(loggable(&discovered), "http://h/keys?…");
    }

    proptest! {
        #[test]
        fn whatever_is_taken_can_have_a_path_put_behind_it(text in "(http|https|HTTP)://.{0,40}") {
            let Ok(url) = text.parse::<BaseUrl>() else { return Ok(()) };
            let mut url = Url::from(url);
            prop_assert!(url.has_host() && url.query().is_none() && url.password().is_none());
            prop_assert!(url.path_segments_mut().is_ok());
        }
    }
}
