-- A deleted mesh keeps its row (and its audit log) without a name; what else it had is erased bit by bit.
ALTER TABLE meshes ADD COLUMN deleted_at_ms BIGINT;
-- Limits that the mesh has set itself: a JSON object of names and numbers.
ALTER TABLE meshes ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
