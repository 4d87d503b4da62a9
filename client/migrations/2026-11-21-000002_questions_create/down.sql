DROP INDEX messages_replies;
DROP INDEX messages_questions;
DROP TABLE question_readers;
DROP TABLE answers;
