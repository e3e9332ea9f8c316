-- What reviewers have approved beforehand. What one says is JSON; what changes, or is looked for, stands in
-- columns of its own, and counts.
CREATE TABLE preapprovals (
    id         TEXT NOT NULL PRIMARY KEY,
    said       TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    uses       INTEGER NOT NULL,
    used       INTEGER NOT NULL DEFAULT 0,
    ended_at   INTEGER,
    ended_by   TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX preapprovals_in_force ON preapprovals (expires_at) WHERE ended_at IS NULL AND used < uses;

-- The pre-approval by which a vote was given before the call came.
ALTER TABLE votes ADD COLUMN preapproval TEXT;
