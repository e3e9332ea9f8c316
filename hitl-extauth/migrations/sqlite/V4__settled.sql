-- What was settled in a span of time: everything the insights count, in one index.
CREATE INDEX requests_settled ON requests (settled_at, tool, state, received_at)
    WHERE settled_at IS NOT NULL;
