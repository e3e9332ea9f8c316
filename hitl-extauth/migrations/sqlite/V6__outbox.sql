-- What is told to whom. The audit is what happened; up to which of its rows a webhook has been told about,
-- or will be, stands here.
CREATE TABLE hooks (
    name TEXT NOT NULL PRIMARY KEY,
    seq  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Messages that have not arrived yet. Without a moment at which they are due they are dead letters.
CREATE TABLE deliveries (
    id       TEXT NOT NULL PRIMARY KEY,
    hook     TEXT NOT NULL,
    kind     TEXT NOT NULL,
    request  TEXT NOT NULL,
    at       INTEGER NOT NULL,
    due_at   INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    error    TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX deliveries_due ON deliveries (due_at) WHERE due_at IS NOT NULL;
