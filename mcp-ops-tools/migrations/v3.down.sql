-- The currency of every order is lost.
DROP INDEX orders_by_customer;

ALTER TABLE orders DROP COLUMN currency;
