//! The master key: 32 random bytes in base64, in a file that only its owner can read.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::problem::ConfigError;
use crate::secret::{Entropy, Secret, SystemEntropy};
use crate::vault::Vault;

/// No key file is longer than this.
const MAX_FILE_BYTES: u64 = 1024;

/// Reads the master key, or with `create` makes it when the file does not exist: 32 random bytes in
/// base64, mode 0600, its directory made with mode 0700. Of two processes that make it at once, one
/// wins and both read the same key.
///
/// # Errors
/// When the file is missing (without `create`), out of reach, open to others than its owner, or holds
/// anything but 32 bytes in base64. No error shows what the file holds.
pub fn master_key(file: &Path, create: bool, entropy: &dyn Entropy) -> Result<Secret, ConfigError> {
    match fs::File::open(file) {
        Ok(opened) => read(file, opened),
        Err(e) if e.kind() == ErrorKind::NotFound && create => {
            make(file, entropy)
                .map_err(|e| ConfigError::master_key(file, format!("the master key cannot be made: {e}")))?;
            let opened = fs::File::open(file).map_err(|e| unreadable(file, &e))?;
            read(file, opened)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let shown = file.display();
            Err(ConfigError::master_key(
                file,
                format!(
                    "there is no master key; make one: (umask 077; head -c 32 /dev/urandom | base64 > {shown})"
                ),
            ))
        }
        Err(e) => Err(unreadable(file, &e)),
    }
}

/// The file of the master key, held: by servers and commands together, or by a change of the key alone. The
/// hold ends when this is dropped, or its process ends.
#[derive(Debug)]
pub struct MasterKeyFile {
    file: PathBuf,
    _held: fs::File,
}

impl MasterKeyFile {
    /// Holds the file together with others, or `alone`.
    ///
    /// # Errors
    /// When it cannot be opened, or is held in the other way.
    pub fn hold(file: &Path, alone: bool) -> Result<Self, ConfigError> {
        let held = fs::File::open(file).map_err(|e| unreadable(file, &e))?;
        let locked = if alone { held.try_lock() } else { held.try_lock_shared() };
        locked.map_err(|error| {
            let why = match (error, alone) {
                (fs::TryLockError::Error(e), _) => format!("the master key cannot be held: {e}"),
                (_, true) => "a server or a command uses the master key; stop it first".to_owned(),
                (_, false) => "the master key is being changed; try again when that has ended".to_owned(),
            };
            ConfigError::master_key(file, why)
        })?;
        Ok(Self { file: file.to_owned(), _held: held })
    }

    fn next_file(&self) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(".next");
        name.into()
    }

    /// The key that a change of keys wrote and did not put in place: it was broken off.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn next(&self) -> Result<Option<Secret>, ConfigError> {
        let file = self.next_file();
        if file.exists() { master_key(&file, false, &SystemEntropy).map(Some) } else { Ok(None) }
    }

    /// Makes the next key beside the present one, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn make_next(&self, entropy: &dyn Entropy) -> Result<Secret, ConfigError> {
        self.drop_next()?;
        master_key(&self.next_file(), true, entropy)
    }

    /// Puts the next key in the place of the present one, durably. Of two processes that do it at once, both
    /// find it done.
    ///
    /// # Errors
    /// When the file cannot be renamed.
    pub fn promote(&self) -> Result<(), ConfigError> {
        let refused = |e| ConfigError::master_key(&self.file, format!("the next key cannot be put in place: {e}"));
        match fs::rename(self.next_file(), &self.file) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(refused(e)),
            _ => {}
        }
        let directory = self.file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(directory).and_then(|d| d.sync_all()).map_err(refused)
    }

    /// Removes a next key that nothing is sealed with.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn drop_next(&self) -> Result<(), ConfigError> {
        match fs::remove_file(self.next_file()) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(ConfigError::master_key(&self.next_file(), format!("it cannot be removed: {e}")))
            }
            _ => Ok(()),
        }
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::master_key(file, format!("the master key cannot be read: {error}"))
}

fn read(file: &Path, opened: fs::File) -> Result<Secret, ConfigError> {
    let metadata = opened.metadata().map_err(|e| unreadable(file, &e))?;
    if !metadata.is_file() {
        return Err(ConfigError::master_key(file, "the master key is not a plain file"));
    }
    check_mode(file, &metadata)?;
    let mut text = Zeroizing::new(Vec::with_capacity(128));
    opened.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(|e| unreadable(file, &e))?;
    let bytes = BASE64.decode(text.trim_ascii()).map_err(|_| {
        ConfigError::master_key(file, format!("the master key is not base64 of {} bytes", Vault::MASTER_KEY_BYTES))
    })?;
    let found = bytes.len();
    let secret = Secret::new(bytes);
    if found != Vault::MASTER_KEY_BYTES {
        let wanted = Vault::MASTER_KEY_BYTES;
        return Err(ConfigError::master_key(
            file,
            format!("the master key has {found} bytes; it must have {wanted}"),
        ));
    }
    Ok(secret)
}

#[cfg(unix)]
fn check_mode(file: &Path, metadata: &fs::Metadata) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let shown = file.display();
    Err(ConfigError::master_key(
        file,
        format!("the master key is open to others than its owner (mode {mode:04o}); close it: chmod 600 {shown}"),
    ))
}

#[cfg(not(unix))]
fn check_mode(_file: &Path, _metadata: &fs::Metadata) -> Result<(), ConfigError> {
    Ok(())
}

/// Writes a whole key under another name first, so that nobody ever reads half of one.
fn make(file: &Path, entropy: &dyn Entropy) -> std::io::Result<()> {
    let directory = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_directory(directory)?;
    let secret = Secret::random(Vault::MASTER_KEY_BYTES, entropy);
    let text = Zeroizing::new(BASE64.encode(secret.expose()) + "\n");
    let mut draft = tempfile::NamedTempFile::new_in(directory)?;
    draft.write_all(text.as_bytes())?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(file) {
        Ok(_) => fs::File::open(directory).and_then(|d| d.sync_all()).or(Ok(())),
        Err(e) if e.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e.error),
    }
}

fn make_directory(directory: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sevens;

    impl Entropy for Sevens {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(7);
        }
    }

    #[test]
    fn a_master_key_is_made_once_and_only_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("data/master.key");
        let told = master_key(&file, false, &Sevens).unwrap_err().to_string();
        assert!(told.contains("there is no master key; make one: (umask 077; "), "{told}");
        assert!(!file.exists());
        assert_eq!(master_key(&file, true, &Sevens).unwrap().expose(), [7; 32]);
        assert_eq!(master_key(&file, true, &SystemEntropy).unwrap().expose(), [7; 32]);
        assert_eq!(master_key(&file, false, &SystemEntropy).unwrap().expose(), [7; 32]);
        assert_eq!(fs::read_dir(directory.path().join("data")).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_master_key_that_others_can_read_or_of_another_length_is_refused_and_not_shown() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("master.key");
        master_key(&file, true, &Sevens).unwrap();
        let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        for open in [0o640, 0o604, 0o660, 0o777] {
            fs::set_permissions(&file, fs::Permissions::from_mode(open)).unwrap();
            let told = master_key(&file, true, &Sevens).unwrap_err().to_string();
            assert!(told.contains(&format!("(mode {open:04o}); close it: chmod 600 ")), "{told}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let cases = [
            (BASE64.encode(&[7; 31]), "the master key has 31 bytes; it must have 32"),
            (BASE64.encode(&[7; 33]), "the master key has 33 bytes; it must have 32"),
            (String::new(), "the master key has 0 bytes; it must have 32"),
            ("hunter2!".repeat(4), "the master key is not base64 of 32 bytes"),
            ("A".repeat(5000), "the master key has 768 bytes; it must have 32"),
        ];
        for (text, expected) in cases {
            fs::write(&file, &text).unwrap();
            let told = master_key(&file, true, &Sevens).unwrap_err().to_string();
            assert!(told.ends_with(expected), "{told}");
            assert!(!told.contains("hunter2"));
        }
        let told = master_key(directory.path(), true, &Sevens).unwrap_err().to_string();
        assert!(told.ends_with("the master key is not a plain file"), "{told}");
    }
}
