use super::*;

fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

fn log(count: usize) -> (tempfile::TempDir, ConfigStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ConfigStore::at(dir.path());
    for number in 0..count {
        append(&store, &key(), "m", Event::Asked, json!({"number": number})).unwrap();
    }
    (dir, store)
}

fn faults(store: &ConfigStore) -> Vec<Fault> {
    walk(store, &[key().public()], |_| {}).unwrap()
}

#[test]
fn any_change_inside_the_log_is_found() {
    let (_dir, store) = log(4);
    assert_eq!(faults(&store), vec![]);
    assert_eq!(files::mode_of(&path(&store)), Some(0o600));
    let whole = std::fs::read_to_string(path(&store)).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let changed = whole.replacen("\"number\":1", "\"number\":9", 1);
    let removed = [lines[0], lines[2], lines[3], ""].join("\n");
    let swapped = [lines[1], lines[0], lines[2], lines[3], ""].join("\n");
    let doubled = [lines[0], lines[0], lines[1], ""].join("\n");
    let headless = [lines[1], lines[2], ""].join("\n");
    let garbage = [lines[0], "nonsense", lines[1], ""].join("\n");
    for text in [changed, removed, swapped, doubled, headless, garbage] {
        std::fs::write(path(&store), &text).unwrap();
        assert!(!faults(&store).is_empty(), "{text}");
    }
    // Signed by someone else, in a chain that fits.
    let (_dir, store) = log(1);
    append(&store, &SecretKey::from_seed([8; 32]), "m", Event::Asked, json!({})).unwrap();
    assert_eq!(faults(&store).len(), 1);
}

#[test]
fn a_line_cut_off_by_a_crash_is_removed_and_told() {
    let (_dir, store) = log(2);
    let whole = std::fs::read(path(&store)).unwrap();
    let torn = [&whole[..], b"{\"seq\":3,\"at\""].concat();
    std::fs::write(path(&store), torn).unwrap();
    assert_eq!(faults(&store).first().map(|fault| fault.line), Some(3));
    append(&store, &key(), "m", Event::Expired, json!({})).unwrap();
    let mut events = vec![];
    let faults = walk(&store, &[key().public()], |record| events.push(record["event"].clone())).unwrap();
    assert_eq!((faults, events), (vec![], vec!["asked".into(), "asked".into(), json!("mended"), "expired".into()]));
}

#[test]
fn writers_at_once_make_one_chain() {
    let (_dir, store) = log(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..5 {
                    append(&store, &key(), "m", Event::Refused, json!({"number": number})).unwrap();
                }
            });
        }
    });
    let mut count = 0;
    assert_eq!(walk(&store, &[key().public()], |_| count += 1).unwrap(), vec![]);
    assert_eq!(count, 20);
}

#[test]
fn a_log_that_cannot_be_written_is_an_error() {
    let (_dir, store) = log(0);
    std::fs::create_dir(path(&store)).unwrap();
    assert!(append(&store, &key(), "m", Event::Asked, json!({})).is_err());
    #[cfg(target_os = "linux")]
    {
        std::fs::remove_dir(path(&store)).unwrap();
        // A disk without room.
        std::os::unix::fs::symlink("/dev/full", path(&store)).unwrap();
        assert!(append(&store, &key(), "m", Event::Asked, json!({})).is_err());
    }
}

/// Records as long as they may be, so that a file is full soon.
fn fill(store: &ConfigStore, records: usize) {
    for _ in 0..records {
        append(store, &key(), "m", Event::Asked, json!({"preview": "x".repeat(60_000)})).unwrap();
    }
}

fn files_of(store: &ConfigStore) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(store.dir()).unwrap().flatten().map(|entry| entry.path());
    let mut list: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    list.sort();
    list
}

#[test]
fn a_full_file_is_put_aside_and_the_chain_goes_on() {
    let (_dir, store) = log(0);
    let per_file = usize::try_from(MAX_FILE_BYTES).unwrap() / 60_000 + 1;
    fill(&store, 2 * per_file + 1);
    let list = files_of(&store);
    assert_eq!(list.len(), 3, "{list:?}");
    assert!(list.iter().all(|path| std::fs::metadata(path).unwrap().len() < MAX_FILE_BYTES + 2 * MAX_LINE_BYTES));
    assert!(list.iter().all(|path| files::mode_of(path) == Some(0o600)));
    let mut count = 0;
    assert_eq!(walk(&store, &[key().public()], |_| count += 1).unwrap(), vec![]);
    assert_eq!(count, 2 * per_file + 1, "all files are read");
    // A process that died right after it had put the file aside.
    std::fs::rename(&list[2], archive_for_tests(&store, count as u64)).unwrap();
    fill(&store, 1);
    assert_eq!(faults(&store), vec![]);
    // What was put aside is as well guarded as the rest: changed, removed, moved.
    let middle = &files_of(&store)[1];
    let text = std::fs::read(middle).unwrap();
    std::fs::write(middle, String::from_utf8(text.clone()).unwrap().replacen("xxx", "xyx", 1)).unwrap();
    let found = faults(&store);
    assert!(!found.is_empty() && found[0].file.starts_with("audit-0"), "{found:?}");
    std::fs::remove_file(middle).unwrap();
    assert!(faults(&store).iter().any(|fault| fault.what.contains("number")));
    std::fs::write(middle, text).unwrap();
    assert_eq!(faults(&store), vec![]);
    std::fs::remove_file(&files_of(&store)[0]).unwrap();
    assert!(faults(&store)[0].what.contains("missing"), "{:?}", faults(&store));
}

fn archive_for_tests(store: &ConfigStore, seq: u64) -> std::path::PathBuf {
    store.dir().join(format!("audit-{seq:012}.log"))
}

#[test]
fn the_oldest_file_is_given_up_and_the_chain_says_so() {
    let (_dir, store) = log(0);
    // Files that are put aside by hand, so that many are there without much writing.
    for round in 1..=MAX_ARCHIVES as u64 + 2 {
        append(&store, &key(), "m", Event::Asked, json!({"round": round})).unwrap();
        let last = Tail::read(&mut File::open(path(&store)).unwrap()).unwrap().last.unwrap();
        std::fs::rename(path(&store), archive_for_tests(&store, last.seq)).unwrap();
    }
    append(&store, &key(), "m", Event::Asked, json!({})).unwrap();
    assert_eq!(files_of(&store).len(), MAX_ARCHIVES + 1);
    let mut events = vec![];
    let found = walk(&store, &[key().public()], |record| events.push(record["event"].clone())).unwrap();
    assert_eq!(found, vec![]);
    assert!(events.contains(&json!("pruned")), "{events:?}");
    // More is missing than was given up.
    std::fs::remove_file(&files_of(&store)[0]).unwrap();
    assert!(!faults(&store).is_empty());
}
