CREATE TABLE requests (
    id               TEXT NOT NULL PRIMARY KEY,
    digest           TEXT NOT NULL,
    state            TEXT NOT NULL,
    received_at      INTEGER NOT NULL,
    expires_at       INTEGER NOT NULL,
    settled_at       INTEGER,
    grant_expires_at INTEGER,
    needed           INTEGER NOT NULL,
    requester        TEXT NOT NULL,
    assurance        TEXT NOT NULL,
    route            TEXT NOT NULL,
    server           TEXT NOT NULL,
    method           TEXT NOT NULL,
    path             TEXT NOT NULL,
    headers          TEXT NOT NULL,
    body             TEXT NOT NULL,
    tool             TEXT NOT NULL,
    arguments        TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A call finds its request, its grant or its fresh denial by the digest.
CREATE INDEX requests_by_digest ON requests (digest, received_at);

-- What may still run out, by when.
CREATE INDEX requests_pending ON requests (expires_at) WHERE state = 'pending';
CREATE INDEX requests_granted ON requests (grant_expires_at) WHERE state = 'approved';

CREATE TABLE votes (
    request  TEXT NOT NULL REFERENCES requests (id),
    reviewer TEXT NOT NULL,
    approved INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (request, reviewer)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    seq      INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    request  TEXT NOT NULL,
    kind     TEXT NOT NULL,
    data     TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash     TEXT NOT NULL
) STRICT;

CREATE INDEX events_by_request ON events (request);

CREATE TRIGGER events_keep_their_rows BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;

CREATE TRIGGER events_keep_what_they_say BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;

-- One row that is written to see whether writing works.
CREATE TABLE probe (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    at       INTEGER NOT NULL
) STRICT;
