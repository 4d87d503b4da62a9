DROP TABLE mesh_clocks;
