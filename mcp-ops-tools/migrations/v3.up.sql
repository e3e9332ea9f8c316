-- Orders in more than one currency, and a quick way to a customer's orders.
ALTER TABLE orders ADD COLUMN currency TEXT NOT NULL DEFAULT 'USD';

CREATE INDEX orders_by_customer ON orders (customer);
