//! How the daemon is linked: with its relocations packed, where the C library that it will run with can read them. They are
//! 0.9 of 17 MB otherwise, and each daemon and keeper has them in memory for having started.

use std::process::Command;

/// The first glibc that reads packed relocations, and says so to the loader.
const FIRST: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let var = |name| std::env::var(name).unwrap_or_default();
    let here = var("HOST") == var("TARGET") && var("CARGO_CFG_TARGET_ENV") == "gnu";
    if here && glibc().is_some_and(|version| version >= FIRST) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's C library; none where it is another.
fn glibc() -> Option<(u32, u32)> {
    let told = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    let mut parts = told.trim().strip_prefix("glibc ")?.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}
