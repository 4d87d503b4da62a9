//! The table of the clock as diesel sees it.

diesel::table! {
    mesh_clocks (mesh_id) {
        mesh_id -> Text,
        speed_thousandths -> BigInt,
        paused -> Bool,
        auto_paused -> Bool,
        tick -> BigInt,
        sim_ms -> BigInt,
        phase_us -> BigInt,
        started_at_ms -> BigInt,
        saved_at_ms -> BigInt,
    }
}
