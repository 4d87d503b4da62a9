use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

fn zip_of(build: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    build(&mut zip);
    zip.finish().unwrap().into_inner()
}

fn files(names: &[&str]) -> Vec<u8> {
    zip_of(|zip| {
        for name in names {
            zip.start_file(*name, SimpleFileOptions::default().unix_permissions(0o644)).unwrap();
            zip.write_all(name.as_bytes()).unwrap();
        }
    })
}

/// Unpacks beside a file that must not be touched.
fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, anyhow::Result<Unpacked>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("outside"), "untouched").unwrap();
    let target = folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let done = unpack(bytes, &target);
    assert_eq!(std::fs::read_to_string(folder.path().join("outside")).unwrap(), "untouched");
    (folder, done)
}

fn refused(bytes: &[u8]) -> String {
    unpacked(bytes).1.expect_err("it is refused").to_string()
}

#[test]
fn files_lie_where_they_belong_and_a_folder_around_all_is_left_out() {
    let (folder, done) = unpacked(&files(&["top/a.js", "top/src/b.js"]));
    assert_eq!(done.unwrap(), Unpacked { files: 2, bytes: 20 });
    assert_eq!(std::fs::read_to_string(folder.path().join("target/src/b.js")).unwrap(), "top/src/b.js");
    let (folder, done) = unpacked(&files(&["a.js", "src/b.js"]));
    assert_eq!(done.unwrap().files, 2);
    assert!(folder.path().join("target/a.js").is_file());
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    for name in ["../outside", "a/../../outside", "/etc/x", "a\\..\\outside", "..", "C:x"] {
        let error = refused(&files(&["ok.js", name]));
        assert!(error.contains("folder") || error.contains("plain") || error.contains("twice"), "{name}: {error}");
    }
}

#[test]
fn links_and_files_twice_are_refused() {
    let link = zip_of(|zip| zip.add_symlink("a", "../outside", SimpleFileOptions::default()).unwrap());
    assert!(refused(&link).contains("neither a file nor a folder"));
    // The writer refuses the same name twice: it is made by changing the second one.
    let mut twice = files(&["x/one.js", "x/two.js", "y"]);
    while let Some(at) = memchr::memmem::find(&twice, b"x/two.js") {
        twice[at..at + 8].copy_from_slice(b"x/one.js");
    }
    // Some readers see one of them, others both; there is no file with the content of both.
    match unpacked(&twice) {
        (_, Err(error)) => assert!(error.to_string().contains("twice"), "{error}"),
        (folder, Ok(done)) => {
            assert_eq!(done.files, 2);
            assert!(folder.path().join("target/x/one.js").is_file());
        }
    }
}

#[test]
fn bombs_and_what_is_no_zip_are_refused() {
    assert!(refused(b"PK nothing").contains("no zip"));
    let bomb = zip_of(|zip| {
        for at in 0..3 {
            zip.start_file(format!("{at}"), SimpleFileOptions::default()).unwrap();
            std::io::copy(&mut std::io::repeat(0).take(500_000), zip).unwrap();
        }
    });
    assert!(bomb.len() < 20_000);
    let folder = tempfile::tempdir().unwrap();
    let error = unpack_within(&bomb, folder.path(), 1_000_000).unwrap_err();
    assert!(error.to_string().contains("unpacks to more"), "{error}");
    let many: Vec<String> = (0..=MAX_BUNDLE_ENTRIES).map(|at| format!("{at}/")).collect();
    let many =
        zip_of(|zip| many.iter().for_each(|name| zip.add_directory(name, SimpleFileOptions::default()).unwrap()));
    assert!(refused(&many).contains("entries"));
}
