//! Finding the driver's library.

use std::sync::OnceLock;

use libloading::Library;

/// Where the driver's library is looked for: the dynamic linker's own search, then where it lies on systems that do not
/// tell the linker (WSL, NixOS, some containers).
const PLACES: &[&str] = &[
    "libcuda.so.1",
    "/usr/lib/wsl/lib/libcuda.so.1",
    "/run/opengl-driver/lib/libcuda.so.1",
    "/usr/local/nvidia/lib64/libcuda.so.1",
    "/usr/lib64/libcuda.so.1",
    #[cfg(target_arch = "x86_64")]
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    #[cfg(target_arch = "aarch64")]
    "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
];

/// There is no driver on this machine, or it does not load.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no NVIDIA driver found: {reason}")]
pub struct NoDriver {
    reason: String,
}

/// Whether the driver's library is there. It may still see no GPU: `cuInit` tells.
pub fn available() -> Result<(), NoDriver> {
    library().map(|_| ()).map_err(Clone::clone)
}

/// The library, opened once and never closed: its functions stay in the slots.
pub(crate) fn library() -> Result<&'static Library, &'static NoDriver> {
    static LIBRARY: OnceLock<Result<Library, NoDriver>> = OnceLock::new();
    LIBRARY.get_or_init(open).as_ref()
}

fn open() -> Result<Library, NoDriver> {
    let mut first = None;
    for place in PLACES {
        // SAFETY: the library is the system's own driver; its initialisers are as safe as a plain link would make them.
        match unsafe { Library::new(*place) } {
            Ok(library) => return Ok(library),
            Err(error) => _ = first.get_or_insert(error),
        }
    }
    Err(NoDriver { reason: first.map_or_else(String::new, |error| reason(&error)) })
}

/// The dynamic linker's own words, which libloading keeps as the source of its error.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
