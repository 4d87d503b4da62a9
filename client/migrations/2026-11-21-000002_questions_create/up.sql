-- Answers to questions, one per question: whoever begins first, in whatever process, holds it.
CREATE TABLE answers (
    seq INTEGER NOT NULL PRIMARY KEY REFERENCES messages (seq) ON DELETE CASCADE,
    -- Idempotency key of the answer: a second attempt after a crash is the same message.
    client_message_id TEXT NOT NULL,
    begun_at_ms BIGINT NOT NULL,
    -- NULL while it is under way.
    answered_at_ms BIGINT
);

-- How far each reader came with each question. No row: it has not been brought up with that reader.
CREATE TABLE question_readers (
    reader TEXT NOT NULL,
    seq INTEGER NOT NULL REFERENCES messages (seq) ON DELETE CASCADE,
    polled_at_ms BIGINT,
    stop_blocks INTEGER NOT NULL,
    declined_at_ms BIGINT,
    PRIMARY KEY (reader, seq)
);

CREATE INDEX messages_questions ON messages (seq) WHERE subtype = 'question';
CREATE INDEX messages_replies ON messages (reply_to_id) WHERE reply_to_id IS NOT NULL;
