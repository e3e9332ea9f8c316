-- What the rules ask for, where it is not one approval by anybody; groups and other names of requesters
-- and of reviewers. All of it JSON. Nothing is what it was before there were rules.
ALTER TABLE requests ADD COLUMN ruling text;
ALTER TABLE requests ADD COLUMN requester_groups text;
ALTER TABLE requests ADD COLUMN requester_also text;
ALTER TABLE votes ADD COLUMN groups text;
ALTER TABLE votes ADD COLUMN also text;

-- Whether a reviewer came by a token of the list although there was an identity provider.
ALTER TABLE votes ADD COLUMN break_glass boolean NOT NULL DEFAULT false;
