//! A folder of this thread's own, for readers that read files. In memory where there is such a place.

use camino::{Utf8Path, Utf8PathBuf};

thread_local! {
    static FOLDER: tempfile::TempDir = {
        let of = tempfile::Builder::new().prefix("agentd-fuzz-").to_owned();
        of.tempdir_in("/dev/shm").or_else(|_| of.tempdir()).expect("a temporary folder")
    };
}

/// Does something with the folder. What it leaves there is there the next time.
pub(crate) fn with<T>(work: impl FnOnce(&Utf8Path) -> T) -> T {
    FOLDER.with(|folder| {
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("a UTF-8 temporary folder");
        work(&path)
    })
}
