-- What the rules ask for, where it is not one approval by anybody; groups of requesters and of reviewers.
-- All of it JSON. Nothing is what it was before there were rules.
ALTER TABLE requests ADD COLUMN ruling TEXT;
ALTER TABLE requests ADD COLUMN requester_groups TEXT;
ALTER TABLE votes ADD COLUMN groups TEXT;
