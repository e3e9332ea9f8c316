-- The caller's network address, as the gateway saw it. Older requests have none.
ALTER TABLE requests ADD COLUMN address TEXT;
