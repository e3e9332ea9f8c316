-- How many requests wait that come from one address, of requesters whose names nobody has verified. Kept by
-- the database itself, in the transaction of every change, so that nobody ever has to count them.
CREATE TABLE crowds (
    address  TEXT NOT NULL PRIMARY KEY,
    requests INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO crowds SELECT coalesce(address, ''), count(*) FROM requests
    WHERE state = 'pending' AND assurance <> 'verified' GROUP BY coalesce(address, '');

CREATE TRIGGER crowds_are_counted AFTER INSERT ON requests
WHEN NEW.state = 'pending' AND NEW.assurance <> 'verified'
BEGIN
    INSERT INTO crowds VALUES (coalesce(NEW.address, ''), 1)
        ON CONFLICT (address) DO UPDATE SET requests = requests + 1;
END;

CREATE TRIGGER crowds_are_counted_where_they_are AFTER UPDATE OF state ON requests
WHEN OLD.state = 'pending' AND NEW.state <> 'pending' AND OLD.assurance <> 'verified'
BEGIN
    UPDATE crowds SET requests = requests - 1 WHERE address = coalesce(OLD.address, '');
    DELETE FROM crowds WHERE address = coalesce(OLD.address, '') AND requests = 0;
END;
