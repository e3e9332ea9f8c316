-- Money in whole cents instead of floating point. Rewrites every order.
CREATE TABLE orders_v4 (
    id          INTEGER PRIMARY KEY,
    customer    TEXT NOT NULL,
    total_cents INTEGER NOT NULL,
    status      TEXT NOT NULL DEFAULT 'pending',
    currency    TEXT NOT NULL DEFAULT 'USD'
) STRICT;

INSERT INTO orders_v4 (id, customer, total_cents, status, currency)
SELECT id, customer, CAST(round(total * 100) AS INTEGER), status, currency FROM orders;

DROP TABLE orders;

ALTER TABLE orders_v4 RENAME TO orders;

CREATE INDEX orders_by_customer ON orders (customer);
