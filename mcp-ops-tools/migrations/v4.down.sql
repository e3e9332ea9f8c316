-- Back to floating point. Rewrites every order.
CREATE TABLE orders_v3 (
    id       INTEGER PRIMARY KEY,
    customer TEXT NOT NULL,
    total    REAL NOT NULL,
    status   TEXT NOT NULL DEFAULT 'pending',
    currency TEXT NOT NULL DEFAULT 'USD'
) STRICT;

INSERT INTO orders_v3 (id, customer, total, status, currency)
SELECT id, customer, total_cents / 100.0, status, currency FROM orders;

DROP TABLE orders;

ALTER TABLE orders_v3 RENAME TO orders;

CREATE INDEX orders_by_customer ON orders (customer);
