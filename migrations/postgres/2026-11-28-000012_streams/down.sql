DROP TABLE stream_heads;
DROP TABLE stream_consumers;
DROP TABLE stream_entries;
DROP TABLE streams;
