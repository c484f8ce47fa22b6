//! Reading files that others wrote: never more of them than a file of that kind can have.
//!
//! The size that the file system tells is not asked for: a device or a pipe has none, and never ends.

use std::fs::File;
use std::io::{Error, ErrorKind, Read as _, Result};
use std::path::Path;

/// Refuses what is there and no regular file, such as a pipe: merely opening one waits for whoever is at its other end,
/// and nothing ends that wait.
///
/// # Errors
/// [`ErrorKind::IsADirectory`] or [`ErrorKind::InvalidInput`] when it is something else; whatever looking fails with.
pub(crate) fn check_regular(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(Error::new(ErrorKind::IsADirectory, "it is a folder"));
    }
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(())
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// [`ErrorKind::FileTooLarge`] beyond the limit; whatever reading fails with.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let why = format!("it has more than {limit} bytes");
        return Err(Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// Reads a whole text of at most `limit` bytes.
///
/// # Errors
/// As [`read`], and [`ErrorKind::InvalidData`] for what is not UTF-8.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_given_up() {
        let failure = read(Path::new("/dev/zero"), 10).unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_file_of_the_limit_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789").unwrap();
        assert_eq!(read_text(file.path(), 10).unwrap(), "0123456789");
        assert!(read_text(file.path(), 9).is_err());
    }
}
