-- What the rules ask for, where it is not one approval by anybody; groups and other names of requesters
-- and of reviewers. All of it JSON. Nothing is what it was before there were rules.
ALTER TABLE requests ADD COLUMN ruling TEXT;
ALTER TABLE requests ADD COLUMN requester_groups TEXT;
ALTER TABLE requests ADD COLUMN requester_also TEXT;
ALTER TABLE votes ADD COLUMN groups TEXT;
ALTER TABLE votes ADD COLUMN also TEXT;

-- Whether a reviewer came by a token of the list although there was an identity provider.
ALTER TABLE votes ADD COLUMN break_glass INTEGER NOT NULL DEFAULT 0;
