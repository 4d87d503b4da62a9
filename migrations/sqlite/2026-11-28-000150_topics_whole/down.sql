DROP INDEX messages_by_reply;
DROP TABLE notifications;
DROP TABLE topic_reactions;
DROP TABLE topic_marks;
ALTER TABLE topics DROP COLUMN retention_ms;
