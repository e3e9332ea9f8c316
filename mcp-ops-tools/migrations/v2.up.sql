-- An order is paid or pending; a customer has a tier.
ALTER TABLE orders ADD COLUMN status TEXT NOT NULL DEFAULT 'pending';

ALTER TABLE customers ADD COLUMN tier TEXT NOT NULL DEFAULT 'bronze';
