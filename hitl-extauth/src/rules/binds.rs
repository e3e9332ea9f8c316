//! What an approval is bound to because a condition reads it, beside what every approval is bound to.
//!
//! Pure. Owns which variables and members an approval is bound to anyway. Invariant: a use that is not
//! known to read only those binds everything under its variable.

/// What conditions read that an approval is not bound to anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Binds {
    /// The requester's groups.
    pub(super) groups: bool,
    /// The caller's network address.
    pub(super) address: bool,
    /// The headers that are kept for rules.
    pub(super) headers: bool,
}

impl Binds {
    /// A member of a variable is read. The digest of a call has the requester's name, and how strongly it
    /// was authenticated.
    pub(super) fn member(&mut self, variable: &str, member: &str) {
        match (variable, member) {
            ("requester", "name" | "assurance") => {}
            _ => self.variable(variable),
        }
    }

    /// A variable is read as a whole, or in a way that does not say which member.
    pub(super) fn variable(&mut self, variable: &str) {
        match variable {
            // In the digest of every call; and the rules are evaluated again when an approval is used.
            "server" | "route" | "tool" | "arguments" | "time" => {}
            "requester" => self.groups = true,
            "source" => self.address = true,
            "headers" => self.headers = true,
            _ => *self = Self { groups: true, address: true, headers: true },
        }
    }

    /// What one of the two binds.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            groups: self.groups || other.groups,
            address: self.address || other.address,
            headers: self.headers || other.headers,
        }
    }
}
