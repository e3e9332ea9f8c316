-- How many requests there are of each tool in each state. Kept by the database itself, in the
-- transaction of every change, so that nobody ever has to count them.
CREATE TABLE tally (
    state    TEXT NOT NULL,
    tool     TEXT NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (state, tool)
) STRICT, WITHOUT ROWID;

INSERT INTO tally SELECT state, tool, count(*) FROM requests GROUP BY state, tool;

CREATE TRIGGER requests_are_counted AFTER INSERT ON requests
BEGIN
    INSERT INTO tally VALUES (NEW.state, NEW.tool, 1)
        ON CONFLICT (state, tool) DO UPDATE SET requests = requests + 1;
END;

CREATE TRIGGER requests_are_counted_where_they_are AFTER UPDATE OF state ON requests
WHEN OLD.state <> NEW.state
BEGIN
    UPDATE tally SET requests = requests - 1 WHERE state = OLD.state AND tool = OLD.tool;
    DELETE FROM tally WHERE state = OLD.state AND tool = OLD.tool AND requests = 0;
    INSERT INTO tally VALUES (NEW.state, NEW.tool, 1)
        ON CONFLICT (state, tool) DO UPDATE SET requests = requests + 1;
END;

-- How many of a requester's requests wait.
CREATE INDEX requests_pending_by_requester ON requests (requester, assurance)
    WHERE state = 'pending';

-- The queue, oldest first.
CREATE INDEX requests_waiting ON requests (id) WHERE state = 'pending';
