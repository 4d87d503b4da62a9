ALTER TABLE messages DROP COLUMN sender_cwd;
ALTER TABLE messages DROP COLUMN sender_hostname;
ALTER TABLE messages DROP COLUMN sender_member_name;
