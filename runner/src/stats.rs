//! What services use.

use std::path::Path;

use claudemesh_protocol::runner::Stats;

use crate::process;
use crate::service::Service;

/// Folders that are looked into at most, so that a folder without end costs no more.
const MAX_FOLDERS: usize = 50_000;

/// Numbers of one service.
pub(crate) fn of(service: &Service) -> Stats {
    let mut stats = Stats {
        service: service.describe(),
        disk_bytes: folder_bytes(&service.dir),
        log_lines: service.log.count(),
        egress: service.proxy.asked(),
        egress_refused: service.proxy.refused(),
        ..Stats::default()
    };
    let page = rustix::param::page_size() as u64;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    for pid in process::processes_of(&service.mark(), service.user) {
        stats.processes += 1;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name: state is the first, user and system time are the 12th and 13th, resident pages the 22nd.
        let fields: Vec<u64> =
            stat.rsplit(") ").next().unwrap_or_default().split(' ').map(|field| field.parse().unwrap_or(0)).collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or(0);
        stats.cpu_ms += (field(11) + field(12)) * 1_000 / ticks;
        stats.memory_bytes += field(21) * page;
    }
    stats
}

/// Bytes that the files of a folder take on disk. Links are not followed.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut folders = vec![folder.to_path_buf()];
    let (mut bytes, mut seen) = (0_u64, 0);
    while let Some(folder) = folders.pop() {
        seen += 1;
        if seen > MAX_FOLDERS {
            break;
        }
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            bytes += found.blocks() * 512;
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}
