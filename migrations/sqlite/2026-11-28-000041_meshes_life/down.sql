ALTER TABLE meshes DROP COLUMN limits;
ALTER TABLE meshes DROP COLUMN deleted_at_ms;
