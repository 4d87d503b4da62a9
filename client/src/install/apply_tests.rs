use serde_json::json;

use super::*;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("settings.json")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn edit<T>(
        &self,
        purpose: Purpose,
        edit: impl Fn(&mut Document) -> Result<T, EditError>,
    ) -> Result<Applied<T>, ApplyError> {
        let (config_dir, backups) = (self.dir.path().join("config"), self.dir.path().join("backups"));
        EditContext { config_dir: &config_dir, backups: &backups }.apply(&self.file(), purpose, edit)
    }

    fn set(&self) -> Result<Applied<()>, ApplyError> {
        self.edit(Purpose::Install, |doc| doc.set(&["mcpServers"], "x", &json!(1)))
    }

    fn unset(&self) -> Result<Applied<()>, ApplyError> {
        self.edit(Purpose::Uninstall, |doc| {
            doc.remove_key(&["mcpServers"], "x");
            Ok(())
        })
    }
}

#[test]
fn a_missing_file_is_made_and_removed_again() {
    let place = Place::new();
    let applied = place.set().unwrap();
    assert!(applied.changed && applied.backup.is_none());
    assert_eq!(place.text(), "{\n  \"mcpServers\": {\n    \"x\": 1\n  }\n}\n");
    assert_eq!(files::mode_of(&place.file()), Some(0o600));
    assert!(place.unset().unwrap().changed);
    assert!(!place.file().exists());
    assert!(!place.dir.path().join("config/install.json").exists(), "no receipt is left");
    assert!(!place.unset().unwrap().changed);
}

#[test]
fn mode_and_link_stay_and_a_backup_is_made() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let real = place.dir.path().join("dotfiles.json");
    fs::write(&real, "{ }").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("dotfiles.json", place.file()).unwrap();
    let applied = place.set().unwrap();
    assert!(fs::symlink_metadata(place.file()).unwrap().is_symlink());
    assert_eq!(files::mode_of(&real), Some(0o640));
    let backup = applied.backup.unwrap();
    assert_eq!(fs::read_to_string(&backup).unwrap(), "{ }");
    assert_eq!(files::mode_of(&backup), Some(0o600));
    assert!(!place.set().unwrap().changed, "again: nothing to do, no second backup");
    place.unset().unwrap();
    assert_eq!(place.text(), "{ }");
}

#[test]
fn broken_files_are_refused_and_stay() {
    let place = Place::new();
    for (text, reason) in [
        ("", "is empty"),
        ("{\"a\":1,}", "not valid JSON"),
        ("// hi\n{}", "not valid JSON"),
        ("[]", "not an object"),
        ("{\"mcpServers\":[]}", "`mcpServers` is not an object"),
    ] {
        place.write(text);
        let error = place.set().unwrap_err();
        assert!(error.to_string().contains(reason), "{text}: {error}");
        assert_eq!(place.text(), text);
    }
    fs::write(place.file(), b"{\"a\":\"\xff\"}").unwrap();
    assert!(place.set().unwrap_err().to_string().contains("UTF-8"));
    assert!(!place.dir.path().join("backups").exists());
}

#[test]
fn read_only_files_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.write("{}");
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o444)).unwrap();
    assert!(matches!(place.set().unwrap_err(), ApplyError::ReadOnly { .. }));
    assert_eq!(place.text(), "{}");
}

#[test]
fn a_write_in_between_is_kept() {
    let place = Place::new();
    place.write("{}");
    let calls = std::cell::Cell::new(0);
    let applied = place.edit(Purpose::Install, |doc| {
        calls.set(calls.get() + 1);
        if calls.get() == 1 {
            // Another program writes after we have read.
            place.write("{\"theirs\":true}");
        }
        doc.set(&["mcpServers"], "x", &json!(1))
    });
    applied.unwrap();
    assert_eq!(calls.get(), 2);
    assert_eq!(place.text(), "{\"theirs\":true,\"mcpServers\":{\"x\":1}}");
}

#[test]
fn a_file_that_never_rests_is_left_alone() {
    let place = Place::new();
    place.write("{}");
    let calls = std::cell::Cell::new(0);
    let result = place.edit(Purpose::Install, |doc| {
        calls.set(calls.get() + 1);
        place.write(&format!("{{\"n\":{}}}", calls.get()));
        doc.set(&["mcpServers"], "x", &json!(1))
    });
    assert!(matches!(result.unwrap_err(), ApplyError::Busy { .. }));
    assert_eq!(place.text(), "{\"n\":5}");
}

#[test]
fn lock_folders_of_others_are_waited_for_and_forgotten_ones_removed() {
    let place = Place::new();
    place.write("{}");
    let lock = place.dir.path().join("settings.json.lock");
    fs::create_dir(&lock).unwrap();
    let file = File::open(&lock).unwrap();
    #[expect(clippy::disallowed_methods, reason = "an old time stamp for the test")]
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    file.set_modified(old).unwrap();
    assert!(place.set().unwrap().changed);
    assert!(!lock.exists());
    fs::create_dir(&lock).unwrap();
    let holder = std::thread::spawn({
        let lock = lock.clone();
        move || fs::remove_dir(lock).unwrap()
    });
    assert!(place.unset().unwrap().changed);
    holder.join().unwrap();
}

#[test]
fn huge_files_are_edited_in_place() {
    let place = Place::new();
    let big = format!("{{\"history\":[{}\"end\"]}}", "\"some line of text\",".repeat(400_000));
    place.write(&big);
    place.set().unwrap();
    place.unset().unwrap();
    assert_eq!(place.text(), big);
}

#[test]
fn only_the_last_backups_are_kept() {
    let place = Place::new();
    place.write("{}");
    let backups = place.dir.path().join("backups");
    let name = place.file().file_name().unwrap().to_string_lossy().into_owned();
    fs::create_dir_all(&backups).unwrap();
    // Not ours: another name, another program's, another file's; and an old one of ours, older than its name sorts.
    let theirs = [format!("{name}.pre-claudemesh.mine"), format!("{name}.backup.17"), "x.pre-claudemesh.17".to_owned()];
    let old = format!("{name}.pre-claudemesh.9");
    for name in theirs.iter().chain([&old]) {
        fs::write(backups.join(name), "").unwrap();
    }
    let mut last = None;
    for _ in 0..12 {
        place.set().unwrap();
        last = place.unset().unwrap().backup;
    }
    assert_eq!(BACKUPS_KEPT, 5);
    assert_eq!(fs::read_dir(&backups).unwrap().count(), BACKUPS_KEPT + theirs.len());
    assert!(theirs.iter().all(|name| backups.join(name).exists()));
    assert!(!backups.join(old).exists() && last.unwrap().exists());
}
