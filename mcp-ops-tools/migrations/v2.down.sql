-- Status and tier are lost: going up again gives every row the default.
ALTER TABLE customers DROP COLUMN tier;

ALTER TABLE orders DROP COLUMN status;
