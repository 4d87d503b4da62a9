-- What was allowed or denied to a member alone; rows of the empty member id are what plain members start with.
CREATE TABLE capabilities (
    mesh_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    capability TEXT NOT NULL,
    allowed BOOLEAN NOT NULL,
    PRIMARY KEY (mesh_id, member_id, capability)
);
