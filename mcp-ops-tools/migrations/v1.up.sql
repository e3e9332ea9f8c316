-- Orders, and the customers who place them.
CREATE TABLE customers (
    id TEXT NOT NULL PRIMARY KEY
) STRICT;

CREATE TABLE orders (
    id       INTEGER PRIMARY KEY,
    customer TEXT NOT NULL,
    total    REAL NOT NULL
) STRICT;
