-- How many requests wait that come from one address, of requesters whose names nobody has verified. Kept by
-- the database itself, in the transaction of every change, so that nobody ever has to count them.
-- Whoever is writing is waited for, and nobody else begins until the triggers are there: what an older gate
-- changes meanwhile would be counted by neither.
LOCK TABLE requests IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE crowds (
    address  text NOT NULL PRIMARY KEY,
    requests bigint NOT NULL
) WITH (fillfactor = 50);

INSERT INTO crowds SELECT coalesce(address, ''), count(*) FROM requests
    WHERE state = 'pending' AND assurance <> 'verified' GROUP BY coalesce(address, '');

CREATE FUNCTION count_crowds() RETURNS trigger LANGUAGE plpgsql
    SET search_path = hitl, pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        UPDATE crowds SET requests = requests - 1 WHERE address = coalesce(OLD.address, '');
        DELETE FROM crowds WHERE address = coalesce(OLD.address, '') AND requests = 0;
    ELSE
        INSERT INTO crowds VALUES (coalesce(NEW.address, ''), 1)
            ON CONFLICT (address) DO UPDATE SET requests = crowds.requests + 1;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER crowds_are_counted AFTER INSERT ON requests
    FOR EACH ROW WHEN (NEW.state = 'pending' AND NEW.assurance <> 'verified')
    EXECUTE FUNCTION count_crowds();
CREATE TRIGGER crowds_are_counted_where_they_are AFTER UPDATE OF state ON requests
    FOR EACH ROW
    WHEN (OLD.state = 'pending' AND NEW.state <> 'pending' AND OLD.assurance <> 'verified')
    EXECUTE FUNCTION count_crowds();
