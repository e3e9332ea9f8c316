-- What reviewers have approved beforehand. What one says is JSON; what changes, or is looked for, stands in
-- columns of its own, and counts.
CREATE TABLE preapprovals (
    id         uuid NOT NULL PRIMARY KEY,
    said       text NOT NULL,
    expires_at bigint NOT NULL,
    uses       integer NOT NULL,
    used       integer NOT NULL DEFAULT 0,
    ended_at   bigint,
    ended_by   text
);

CREATE INDEX preapprovals_in_force ON preapprovals (expires_at) WHERE ended_at IS NULL AND used < uses;

-- The pre-approval by which a vote was given before the call came.
ALTER TABLE votes ADD COLUMN preapproval uuid;
