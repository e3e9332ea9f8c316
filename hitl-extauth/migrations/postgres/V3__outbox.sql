-- What is told to whom. The audit is what happened; up to which of its rows a webhook has been told about,
-- or will be, stands here.
CREATE TABLE hooks (
    name text NOT NULL PRIMARY KEY,
    seq  bigint NOT NULL
);

-- Messages that have not arrived yet. Without a moment at which they are due they are dead letters.
CREATE TABLE deliveries (
    id       text NOT NULL PRIMARY KEY,
    hook     text NOT NULL,
    kind     text NOT NULL,
    request  uuid NOT NULL,
    at       bigint NOT NULL,
    due_at   bigint,
    attempts integer NOT NULL DEFAULT 0,
    error    text
);

CREATE INDEX deliveries_due ON deliveries (due_at) WHERE due_at IS NOT NULL;
