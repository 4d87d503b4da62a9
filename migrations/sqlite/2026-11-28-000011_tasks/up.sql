-- Tasks. `seq` numbers the tasks of a mesh in the order of their creation. A row holds what a list shows; `blockers` counts the
-- dependencies that are not done, so that what is ready is found without a look at any of them.
CREATE TABLE tasks (
    mesh_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    id TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT,
    assignee TEXT,
    assignee_folded TEXT,
    priority INTEGER NOT NULL,
    status INTEGER NOT NULL,
    tags TEXT NOT NULL,
    depends_on TEXT NOT NULL,
    blockers BIGINT NOT NULL,
    creator_member TEXT NOT NULL,
    creator_session TEXT NOT NULL,
    creator_name TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    holder_member TEXT,
    holder_session TEXT,
    holder_name TEXT,
    claimed_at_ms BIGINT,
    result TEXT,
    done_at_ms BIGINT,
    due_at_ms BIGINT,
    version BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, seq)
);
CREATE UNIQUE INDEX tasks_by_id ON tasks (mesh_id, id);
CREATE INDEX tasks_by_status ON tasks (mesh_id, status, seq);
CREATE INDEX tasks_by_assignee ON tasks (mesh_id, assignee_folded, seq);
CREATE INDEX tasks_ready ON tasks (mesh_id, status, blockers, priority DESC, seq);
CREATE INDEX tasks_ready_for ON tasks (mesh_id, status, blockers, assignee_folded, priority DESC, seq);

CREATE TABLE task_tags (
    mesh_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    task_seq BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, tag, task_seq)
) WITHOUT ROWID;
CREATE INDEX task_tags_by_task ON task_tags (mesh_id, task_seq);

-- Task `task_seq` waits for task `needs_seq`.
CREATE TABLE task_dependencies (
    mesh_id TEXT NOT NULL,
    task_seq BIGINT NOT NULL,
    needs_seq BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, task_seq, needs_seq)
) WITHOUT ROWID;
CREATE INDEX task_dependencies_by_need ON task_dependencies (mesh_id, needs_seq);

-- Who did what to a task; `version` is that of the task after it.
CREATE TABLE task_steps (
    mesh_id TEXT NOT NULL,
    task_seq BIGINT NOT NULL,
    version BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    member_id TEXT NOT NULL,
    name TEXT NOT NULL,
    what TEXT NOT NULL,
    detail TEXT,
    PRIMARY KEY (mesh_id, task_seq, version)
);

-- What a mesh has in all: counted here, because counting a hundred thousand rows for each write would take too long.
CREATE TABLE task_heads (
    mesh_id TEXT PRIMARY KEY NOT NULL,
    revision BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    open BIGINT NOT NULL,
    claimed BIGINT NOT NULL,
    done BIGINT NOT NULL,
    bytes BIGINT NOT NULL
) WITHOUT ROWID;

-- What each member has created.
CREATE TABLE task_members (
    mesh_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    tasks BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, member_id)
) WITHOUT ROWID;
