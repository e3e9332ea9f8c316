-- Moments are milliseconds since 1970, as in the SQLite store: one form, one chain.

CREATE TABLE requests (
    id               uuid NOT NULL PRIMARY KEY,
    digest           text NOT NULL,
    state            text NOT NULL,
    received_at      bigint NOT NULL,
    expires_at       bigint NOT NULL,
    settled_at       bigint,
    grant_expires_at bigint,
    needed           integer NOT NULL,
    requester        text NOT NULL,
    assurance        text NOT NULL,
    route            text NOT NULL,
    server           text NOT NULL,
    method           text NOT NULL,
    path             text NOT NULL,
    address          text,
    headers          text NOT NULL,
    body             text NOT NULL,
    tool             text NOT NULL,
    arguments        text NOT NULL,
    -- Where the newest call waits, and since when.
    replica          uuid,
    waiting_since    bigint
);

-- A call finds its request, its grant or its fresh denial by the digest.
CREATE INDEX requests_by_digest ON requests (digest, received_at, id);
CREATE INDEX requests_unsettled_by_digest ON requests (digest)
    WHERE state IN ('approved', 'pending');

-- What may still run out, by when.
CREATE INDEX requests_pending ON requests (expires_at) WHERE state = 'pending';
CREATE INDEX requests_granted ON requests (grant_expires_at) WHERE state = 'approved';

-- How many of a requester's requests wait.
CREATE INDEX requests_pending_by_requester ON requests (md5(requester)) WHERE state = 'pending';

-- The queue, oldest first.
CREATE INDEX requests_waiting ON requests (id) WHERE state = 'pending';

-- What was settled in a span of time.
CREATE INDEX requests_settled ON requests (settled_at) WHERE settled_at IS NOT NULL;

CREATE TABLE votes (
    request  uuid NOT NULL REFERENCES requests (id),
    reviewer text NOT NULL,
    approved boolean NOT NULL,
    reason   text NOT NULL,
    at       bigint NOT NULL,
    PRIMARY KEY (request, reviewer)
);

CREATE TABLE events (
    seq      bigint NOT NULL PRIMARY KEY,
    at       bigint NOT NULL,
    request  uuid NOT NULL,
    kind     text NOT NULL,
    data     text NOT NULL,
    previous text NOT NULL,
    hash     text NOT NULL
);

CREATE INDEX events_by_request ON events (request, seq);

CREATE FUNCTION keep_events() RETURNS trigger LANGUAGE plpgsql
    SET search_path = hitl, pg_catalog AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END $$;

CREATE TRIGGER events_keep_their_rows BEFORE DELETE OR UPDATE ON events
    FOR EACH ROW EXECUTE FUNCTION keep_events();
CREATE TRIGGER events_are_kept BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION keep_events();

-- How many requests there are of each tool in each state. Kept by the database itself, in the
-- transaction of every change, so that nobody ever has to count them.
CREATE TABLE tally (
    state    text NOT NULL,
    tool     text NOT NULL,
    requests bigint NOT NULL,
    PRIMARY KEY (state, tool)
) WITH (fillfactor = 50);

CREATE FUNCTION count_requests() RETURNS trigger LANGUAGE plpgsql
    SET search_path = hitl, pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        UPDATE tally SET requests = requests - 1 WHERE state = OLD.state AND tool = OLD.tool;
        DELETE FROM tally WHERE state = OLD.state AND tool = OLD.tool AND requests = 0;
    END IF;
    INSERT INTO tally VALUES (NEW.state, NEW.tool, 1)
        ON CONFLICT (state, tool) DO UPDATE SET requests = tally.requests + 1;
    RETURN NULL;
END $$;

CREATE TRIGGER requests_are_counted AFTER INSERT ON requests
    FOR EACH ROW EXECUTE FUNCTION count_requests();
CREATE TRIGGER requests_are_counted_where_they_are AFTER UPDATE OF state ON requests
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION count_requests();

-- Replicas that live: each writes here every other second.
CREATE TABLE replicas (
    id      uuid NOT NULL PRIMARY KEY,
    seen_at bigint NOT NULL
) WITH (fillfactor = 50);
