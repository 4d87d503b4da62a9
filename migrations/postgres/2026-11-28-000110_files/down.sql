DROP TABLE file_totals;
DROP TABLE file_accesses;
DROP TABLE file_keys;
DROP TABLE file_readers;
DROP TABLE file_parts;
DROP TABLE files;
