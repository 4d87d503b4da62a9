-- Whose session sent a message, and where it runs.
ALTER TABLE messages ADD COLUMN sender_member_name TEXT;
ALTER TABLE messages ADD COLUMN sender_hostname TEXT;
ALTER TABLE messages ADD COLUMN sender_cwd TEXT;
