-- What the server keeps about the database beside the lab's own tables.
CREATE TABLE schema_state (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    version  INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
    id           INTEGER PRIMARY KEY,
    ts           TEXT NOT NULL,
    op           TEXT NOT NULL,
    detail       TEXT NOT NULL CHECK (json_valid(detail)),
    requester    TEXT,
    approval_id  TEXT,
    approved_by  TEXT CHECK (approved_by IS NULL OR json_valid(approved_by)),
    approved_for TEXT
) STRICT;

CREATE TRIGGER audit_keeps_its_rows BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;

CREATE TRIGGER audit_keeps_what_it_says BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;

CREATE TABLE used_receipts (
    id         TEXT NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
