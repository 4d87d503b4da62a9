//! What of a shared folder is never given, whoever asks, and how a path is read. Text only: no disk is touched.

use claudemesh_protocol::features::peer_files::limits::MAX_PATH_BYTES;

use super::folder::FolderError;

/// Names of keys, passwords and the like, as globs on the lower-case name. What begins with a dot is never given anyway.
const SECRETS: &[&str] = &[
    "*.pem",
    "*.key",
    "*.p8",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ppk",
    "*.gpg",
    "*.asc",
    "*.age",
    "*.agekey",
    "*.ovpn",
    "*.mobileprovision",
    "*.tfstate",
    "*.tfstate.*",
    "*.tfvars",
    "id_*",
    "env",
    "*.env",
    "*.env.*",
    "htpasswd",
    "credentials",
    "credentials.*",
    "secret",
    "secret.*",
    "secrets",
    "secrets.*",
    "*service-account*.json",
    "*service_account*.json",
    "wallet.dat",
];

/// Why a name is never given; `None` when it may be.
pub fn refused(name: &str) -> Option<&'static str> {
    if name.starts_with('.') {
        return Some("hidden");
    }
    let lower = name.to_lowercase();
    SECRETS.iter().any(|glob| fits(glob, &lower)).then_some("a name of keys or secrets")
}

/// A glob that knows `*` only.
fn fits(glob: &str, name: &str) -> bool {
    let Some((before, after)) = glob.split_once('*') else { return glob == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    // The shortest way first; names and globs are short.
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| fits(after, &rest[at..]))
}

/// The parts of a path below the folder; none for the folder itself.
///
/// # Errors
/// A path that no system knows, one that leaves the folder, or one with a name that is never given.
pub fn parts(path: &str) -> Result<Vec<String>, FolderError> {
    if path.len() > MAX_PATH_BYTES || path.contains('\0') {
        return Err(FolderError::BadPath);
    }
    if path.starts_with('/') {
        return Err(FolderError::Outside);
    }
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return Err(FolderError::Traversal);
        }
        if let Some(why) = refused(part) {
            return Err(FolderError::Refused(why));
        }
        parts.push(part.to_owned());
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys_and_hidden_ones_are_refused_in_any_letters() {
        for name in [
            ".env",
            ".git",
            ".",
            "id_rsa",
            "ID_ED25519.pub",
            "server.pem",
            "Server.PEM",
            "a.KEY",
            "prod.env",
            "prod.env.local",
            "env",
            "secrets.yaml",
            "Credentials",
            "terraform.tfstate.backup",
            "my-service-account-1.json",
            "x.p12",
            ".pem",
        ] {
            assert!(refused(name).is_some(), "{name}");
        }
        for name in [
            "identity.rs",
            "keys.rs",
            "README.md",
            "environment.md",
            "pem.txt",
            "secretary.md",
            "key",
            "a.keys",
            "ids",
            "état.txt",
        ] {
            assert!(refused(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_path_stays_below_and_its_parts_are_looked_at() {
        assert_eq!(parts("a//b/./c/").unwrap(), ["a", "b", "c"]);
        for all in ["", ".", "./", "./."] {
            assert_eq!(parts(all).unwrap(), Vec::<String>::new(), "{all:?}");
        }
        assert_eq!(parts("a\nb/\u{202e}c d").unwrap(), ["a\nb", "\u{202e}c d"], "strange, and a name");
        assert_eq!(parts("..a/b..").unwrap_err().code(), parts(".x").unwrap_err().code());
        for bad in ["/etc/passwd", "../x", "a/../../x", "a/..", ".ssh/known", "a/.env", "a/id_rsa/b", "a\0b"] {
            assert!(parts(bad).is_err(), "{bad:?}");
        }
        assert!(parts(&"x/".repeat(MAX_PATH_BYTES)).is_err());
    }
}
