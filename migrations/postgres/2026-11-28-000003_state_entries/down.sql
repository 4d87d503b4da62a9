DROP TABLE state_members;
DROP TABLE state_heads;
DROP TABLE state_entries;
