-- How long a topic keeps its messages, in milliseconds; NULL for the usual 30 days.
ALTER TABLE topics ADD COLUMN retention_ms BIGINT;

-- What happened to messages of topics since they were written. `seq` is the place of the message in the order of its mesh.
CREATE TABLE topic_marks (
    mesh_id TEXT NOT NULL,
    message_id TEXT COLLATE "C" NOT NULL,
    topic_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    edited_at_ms BIGINT,
    deleted_at_ms BIGINT,
    pinned_at_ms BIGINT,
    PRIMARY KEY (mesh_id, message_id)
);
CREATE INDEX topic_marks_pinned ON topic_marks (mesh_id, topic_id, seq) WHERE pinned_at_ms IS NOT NULL;

-- One row for each member and emoji.
CREATE TABLE topic_reactions (
    mesh_id TEXT NOT NULL,
    message_id TEXT COLLATE "C" NOT NULL,
    emoji TEXT COLLATE "C" NOT NULL,
    member_id TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    reacted_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, message_id, emoji, member_id)
);

-- One row for each member that a message mentions.
CREATE TABLE notifications (
    mesh_id TEXT NOT NULL,
    member_id TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    message_id TEXT COLLATE "C" NOT NULL,
    topic_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    read_at_ms BIGINT,
    PRIMARY KEY (mesh_id, member_id, seq)
);

CREATE INDEX notifications_of_message ON notifications (mesh_id, message_id);

-- What answers a message.
CREATE INDEX messages_by_reply ON messages (mesh_id, reply_to_id, seq) WHERE reply_to_id IS NOT NULL;
