-- Back to an empty database.
DROP TABLE orders;

DROP TABLE customers;
