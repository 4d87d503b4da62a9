//! What a shared folder gives, and what it never gives, on a real disk.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::peer_files::limits;

use super::*;

/// A folder in a place of its own, with something beside it that must not be read.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("shared")).unwrap();
        std::fs::write(dir.path().join("outside.txt"), "outside").unwrap();
        Self { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("shared").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::fs::write(self.at(path), text).unwrap();
    }

    fn open(&self) -> SharedFolder {
        SharedFolder::open(&self.at("")).unwrap()
    }
}

fn text(folder: &SharedFolder, path: &str) -> Result<String, ErrorCode> {
    let part = folder.read(path, 0, limits::MAX_READ_BYTES, None).map_err(|error| error.code())?;
    Ok(String::from_utf8(part.bytes).unwrap())
}

const ALL: ListLimits = ListLimits { depth: 8, entries: 1_000, bytes: 1 << 20 };

fn names(folder: &SharedFolder, path: &str, pattern: Option<&str>) -> Vec<String> {
    let list = folder.list(path, pattern, ALL).unwrap();
    list.entries.into_iter().map(|one| if one.is_dir { format!("{}/", one.path) } else { one.path }).collect()
}

#[test]
fn files_are_read_by_parts_and_a_changed_one_is_noticed() {
    let place = Place::new();
    place.write("a/notes.txt", "0123456789");
    let folder = place.open();
    assert_eq!(text(&folder, "a//./notes.txt").unwrap(), "0123456789");
    let first = folder.read("a/notes.txt", 0, 4, None).unwrap();
    assert_eq!((first.bytes.as_slice(), first.size), (&b"0123"[..], 10));
    let next = folder.read("a/notes.txt", 4, 100, Some(&first.version)).unwrap();
    assert_eq!((next.bytes.as_slice(), &next.version), (&b"456789"[..], &first.version));
    for behind in [10, 11, u64::MAX] {
        assert_eq!(folder.read("a/notes.txt", behind, 5, None).unwrap().bytes, b"", "{behind}");
    }
    place.write("a/notes.txt", "another text");
    let changed = folder.read("a/notes.txt", 4, 100, Some(&first.version)).unwrap_err();
    assert_eq!(changed.code(), ErrorCode::Conflict);
    for (path, code) in [
        ("a", ErrorCode::NotAFile),
        (".", ErrorCode::NotAFile),
        ("none", ErrorCode::NotFound),
        ("a/none", ErrorCode::NotFound),
        ("a/notes.txt/x", ErrorCode::NotAFolder),
        ("../outside.txt", ErrorCode::PathRefused),
        ("/etc/passwd", ErrorCode::PathRefused),
    ] {
        assert_eq!(text(&folder, path), Err(code), "{path}");
    }
    let long = "x".repeat(300);
    assert_eq!(text(&folder, &long), Err(ErrorCode::NotFound), "longer than a name can be");
    assert_eq!(folder.list("a/notes.txt", None, ALL).unwrap_err().code(), ErrorCode::NotAFolder);
}

#[test]
fn what_is_never_given_is_not_given_over_any_way() {
    let place = Place::new();
    for (path, inside) in [
        (".env", "hidden"),
        ("id_rsa", "key"),
        ("deep/server.pem", "key"),
        (".ssh/known_hosts", "hidden"),
        ("build/out.txt", "ignored"),
        ("logs/today.log", "ignored"),
        ("logs/keep.log", "kept"),
        (".gitignore", "build/\n*.log\n!keep.log\n"),
        ("docs/.gitignore", "/draft.md\n"),
        ("docs/draft.md", "ignored"),
        ("docs/sub/draft.md", "not the one"),
        ("docs/a.md", "given"),
    ] {
        place.write(path, inside);
    }
    for (link, to) in [
        ("env.txt", ".env"),
        ("key.txt", "id_rsa"),
        ("pem.txt", "deep/server.pem"),
        ("ssh", ".ssh"),
        ("out.txt", "build/out.txt"),
        ("builds", "build"),
        ("up.txt", "../outside.txt"),
        ("deep/up", "../.."),
        ("absolute", "/etc/passwd"),
        ("round", "round"),
        ("docs/b.md", "../docs/a.md"),
        ("chain", "docs/b.md"),
    ] {
        place.write("deep/x", "");
        symlink(to, place.at(link)).unwrap();
    }
    let folder = place.open();
    for path in [
        ".env",
        "id_rsa",
        "ID_RSA",
        "deep/server.pem",
        ".ssh/known_hosts",
        "build/out.txt",
        "logs/today.log",
        ".gitignore",
        "docs/draft.md",
        "env.txt",
        "key.txt",
        "pem.txt",
        "ssh/known_hosts",
        "out.txt",
        "builds/out.txt",
        "up.txt",
        "deep/up/outside.txt",
        "absolute",
    ] {
        assert_eq!(text(&folder, path), Err(ErrorCode::PathRefused), "{path}");
    }
    assert_eq!(text(&folder, "round"), Err(ErrorCode::NotFound));
    for path in ["docs/a.md", "docs/b.md", "chain"] {
        assert_eq!(text(&folder, path).unwrap(), "given", "{path}");
    }
    assert_eq!(text(&folder, "docs/sub/draft.md").unwrap(), "not the one");
    assert_eq!(text(&folder, "logs/keep.log").unwrap(), "kept");
    assert_eq!(
        names(&folder, ".", None),
        [
            "chain",
            "deep/",
            "deep/x",
            "docs/",
            "docs/a.md",
            "docs/b.md",
            "docs/sub/",
            "docs/sub/draft.md",
            "logs/",
            "logs/keep.log"
        ]
    );
    // A list that cannot be read hides what it may be about.
    place.write("docs/.gitignore", &"x\n".repeat(200_000));
    assert_eq!(text(&folder, "docs/a.md"), Err(ErrorCode::PathRefused));
}

#[test]
fn lists_of_the_repository_above_the_folder_hold_too() {
    let place = Place::new();
    let repository = place.dir.path();
    std::fs::create_dir_all(repository.join(".git/info")).unwrap();
    std::fs::write(repository.join(".gitignore"), "*.tmp\n/shared/only-here.txt\n").unwrap();
    std::fs::write(repository.join(".git/info/exclude"), "excluded.txt\n").unwrap();
    for path in ["a.tmp", "only-here.txt", "sub/only-here.txt", "sub/excluded.txt", "a.txt"] {
        place.write(path, "x");
    }
    let folder = place.open();
    assert_eq!(names(&folder, ".", None), ["a.txt", "sub/", "sub/only-here.txt"]);
    for path in ["a.tmp", "only-here.txt", "sub/excluded.txt"] {
        assert_eq!(text(&folder, path), Err(ErrorCode::PathRefused), "{path}");
    }
}

#[test]
fn pipes_sockets_and_devices_are_no_files_and_nothing_waits_for_them() {
    let place = Place::new();
    place.write("a.txt", "x");
    let make = |program: &str, args: &[&str]| {
        let status = std::process::Command::new(program).args(args).current_dir(place.at("")).output();
        status.is_ok_and(|output| output.status.success())
    };
    assert!(make("mkfifo", &["pipe"]));
    let _socket = std::os::unix::net::UnixListener::bind(place.at("socket")).unwrap();
    // Where one may make devices there is one; elsewhere a link to one leads out and is refused as that.
    let device = make("mknod", &["null", "c", "1", "3"]);
    let folder = place.open();
    let mut special = vec!["pipe", "socket"];
    if device {
        special.push("null");
    }
    for path in special {
        assert_eq!(text(&folder, path), Err(ErrorCode::NotAFile), "{path}");
    }
    symlink("/dev/null", place.at("to-null")).unwrap();
    assert_eq!(text(&folder, "to-null"), Err(ErrorCode::PathRefused));
    assert_eq!(names(&folder, ".", None), ["a.txt"]);
}

#[test]
fn strange_names_are_names_and_those_that_are_no_text_are_left_out() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let strange = ["new\nline.txt", "\u{202e}txt.exe", "tab\there", "quote\"'`", "space ", "ü€𝄞", "back\\slash", "-rf"];
    for name in strange {
        place.write(name, name);
    }
    let raw = place.at("").join(std::ffi::OsStr::from_bytes(b"\xff\xfe.txt"));
    std::fs::write(raw, "x").unwrap();
    let longest = "n".repeat(255);
    place.write(&longest, "long");
    let folder = place.open();
    for name in strange {
        assert_eq!(text(&folder, name).unwrap(), name);
    }
    assert_eq!(text(&folder, &longest).unwrap(), "long");
    assert_eq!(text(&folder, "a\0b"), Err(ErrorCode::InvalidArgs));
    let mut wanted: Vec<&str> = strange.into_iter().chain([longest.as_str()]).collect();
    wanted.sort_unstable();
    assert_eq!(names(&folder, ".", None), wanted);
}

#[test]
fn a_list_is_bounded_in_depth_entries_and_bytes_and_takes_a_glob() {
    let place = Place::new();
    for path in ["a/b/c/d.txt", "a/x.md", "a/y.rs", "z.md", "w.MD"] {
        place.write(path, "12345");
    }
    let folder = place.open();
    let shallow = folder.list(".", None, ListLimits { depth: 2, ..ALL }).unwrap();
    let paths: Vec<&str> = shallow.entries.iter().map(|one| one.path.as_str()).collect();
    assert_eq!((paths, shallow.more), (vec!["a", "a/b", "a/x.md", "a/y.rs", "w.MD", "z.md"], false));
    assert_eq!(shallow.entries[2].size, Some(5));
    assert_eq!(names(&folder, ".", Some("*.md")), ["a/x.md", "z.md"]);
    assert_eq!(names(&folder, ".", Some("a/*")), ["a/b/", "a/x.md", "a/y.rs"]);
    assert_eq!(names(&folder, "a", Some("**/*.txt")), ["b/c/d.txt"]);
    assert_eq!(names(&folder, "a/", Some("{x,y}.*")), ["x.md", "y.rs"]);
    assert_eq!(names(&folder, ".", Some("")), Vec::<String>::new());
    for bad in ["[", "{a", &"*".repeat(201)] {
        assert_eq!(folder.list(".", Some(bad), ALL).unwrap_err().code(), ErrorCode::InvalidArgs, "{bad}");
    }
    let few = folder.list(".", None, ListLimits { entries: 2, ..ALL }).unwrap();
    assert_eq!((few.entries.len(), few.more), (2, true));
    let small = folder.list(".", None, ListLimits { bytes: 4, ..ALL }).unwrap();
    assert_eq!((small.entries.len(), small.more), (2, true));
    // Exactly as many as there may be.
    for number in 0..limits::MAX_ENTRIES {
        place.write(&format!("many/{number:04}"), "");
    }
    let many = folder.list("many", None, ListLimits { depth: 1, ..ALL }).unwrap();
    assert_eq!((many.entries.len(), many.more), (limits::MAX_ENTRIES, false));
    place.write("many/last", "");
    let many = folder.list("many", None, ListLimits { depth: 1, ..ALL }).unwrap();
    assert_eq!((many.entries.len(), many.more), (limits::MAX_ENTRIES, true));
}

#[test]
fn a_folder_that_was_moved_or_replaced_gives_nothing() {
    let place = Place::new();
    place.write("a.txt", "first");
    let folder = place.open();
    assert_eq!(text(&folder, "a.txt").unwrap(), "first");
    let elsewhere = place.dir.path().join("moved");
    std::fs::rename(place.at(""), &elsewhere).unwrap();
    assert_eq!(text(&folder, "a.txt"), Err(ErrorCode::NotShared));
    place.write("a.txt", "another folder");
    assert_eq!(text(&folder, "a.txt"), Err(ErrorCode::NotShared), "another folder at its place is not the one");
    assert_eq!(folder.list(".", None, ALL).unwrap_err().code(), ErrorCode::NotShared);
    std::fs::remove_dir_all(place.at("")).unwrap();
    std::fs::rename(&elsewhere, place.at("")).unwrap();
    assert_eq!(text(&folder, "a.txt").unwrap(), "first");
}

/// Another thread replaces a file and a folder by links that lead out, over and over.
#[test]
fn what_changes_meanwhile_leads_nowhere() {
    let place = Place::new();
    place.write("a.txt", "inside");
    place.write("sub/outside.txt", "inside");
    place.write("real/outside.txt", "inside");
    let folder = place.open();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (link, file) = (place.dir.path().join("link"), place.dir.path().join("file"));
            let (out, kept) = (place.dir.path().join("out"), place.dir.path().join("kept"));
            while !stop.load(Ordering::Relaxed) {
                let _ = std::fs::remove_file(&link);
                symlink("../outside.txt", &link).unwrap();
                std::fs::rename(&link, place.at("a.txt")).unwrap();
                std::fs::rename(place.at("sub"), &kept).unwrap();
                let _ = std::fs::remove_file(&out);
                symlink("..", &out).unwrap();
                std::fs::rename(&out, place.at("sub")).unwrap();
                std::fs::write(&file, "inside").unwrap();
                std::fs::rename(&file, place.at("a.txt")).unwrap();
                std::fs::remove_file(place.at("sub")).unwrap();
                std::fs::rename(&kept, place.at("sub")).unwrap();
            }
        });
        let (mut given, mut refused) = (0, 0);
        for _ in 0..4_000 {
            for path in ["a.txt", "sub/outside.txt"] {
                match text(&folder, path) {
                    Ok(text) => {
                        assert_eq!(text, "inside", "{path}");
                        given += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            for entry in folder.list(".", None, ALL).map(|list| list.entries).unwrap_or_default() {
                assert!(!entry.path.contains("sub/shared"), "{entry:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(given > 0 && refused > 0, "both were met: {given} given, {refused} refused");
    });
}

#[test]
fn a_file_that_grows_and_shrinks_is_given_whole_or_not_at_all() {
    let place = Place::new();
    let (short, long) = ("s".repeat(10_000), "l".repeat(200_000));
    place.write("log.txt", &short);
    let folder = place.open();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::fs::write(place.at("log.txt"), &long).unwrap();
                std::fs::write(place.at("log.txt"), &short).unwrap();
            }
        });
        for _ in 0..2_000 {
            if let Ok(part) = folder.read("log.txt", 0, limits::MAX_READ_BYTES, None) {
                assert_eq!(part.bytes.len() as u64, part.size, "what is given is one state of the file");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    std::fs::remove_file(place.at("log.txt")).unwrap();
    assert_eq!(text(&folder, "log.txt"), Err(ErrorCode::NotFound));
}
