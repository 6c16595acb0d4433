//! Kernels in a library: the entry a library exports and the caller's side of it.
//!
//! Both sides are compiled from this file, but perhaps not from the same version of it: they agree on
//! [`ABI_VERSION`] before anything else is read.

use core::ffi::c_void;
use core::mem;
use std::slice;

use crate::{Blocks, Buffer, Cause, Class, Fault, Launch, Place, Stats, run};

/// Version of the layout of [`RawRequest`] and [`RawReport`], in the first field of both for ever.
pub const ABI_VERSION: u32 = 2;

/// Longest message that a report carries, in bytes.
const MESSAGE: usize = 1000;

/// A launch, as it crosses the library boundary.
#[repr(C)]
pub struct RawRequest {
    abi: u32,
    grid: u32,
    threads: u32,
    cluster: u32,
    shared_bytes: u32,
    seed: u64,
    budget: u64,
    check_races: u32,
    all_blocks: u32,
    blocks: *const u32,
    blocks_len: usize,
    kernel: *const u8,
    kernel_len: usize,
    buffers: *const RawBuffer,
    buffers_len: usize,
    arguments: *const u8,
    arguments_len: usize,
}

/// A buffer, as it crosses the library boundary.
#[repr(C)]
struct RawBuffer {
    name: *const u8,
    name_len: usize,
    start: *mut u8,
    bytes: u64,
    writable: u32,
}

/// How a launch ended, as it crosses the library boundary.
#[repr(C)]
pub struct RawReport {
    abi: u32,
    /// 0 if all went well, [`BAD_ABI`], or a [`Class`].
    status: u32,
    message_len: u32,
    message: [u8; MESSAGE],
    stats: Stats,
}

/// The library speaks another version.
const BAD_ABI: u32 = u32::MAX;

/// What an entry point is: `extern "C" fn(*const RawRequest, *mut RawReport)`.
type EntryFn = unsafe extern "C" fn(*const RawRequest, *mut RawReport);

/// The whole body of an entry point that a library exports: runs `kernel` with the request's arguments in every thread.
///
/// `A` is the kernel's argument: plain data for which every bit pattern is valid.
///
/// # Safety
///
/// `request` and `report` must come from [`Entry::call`].
pub unsafe fn export<A: Copy>(request: *const RawRequest, report: *mut RawReport, kernel: impl Fn(A)) {
    // SAFETY: `Entry::call` passes a valid report; this field is the first in every version.
    unsafe { (&raw mut (*report).abi).write(ABI_VERSION) };
    // SAFETY: the same holds of the request.
    if unsafe { (&raw const (*request).abi).read() } != ABI_VERSION {
        // SAFETY: as above; the status is the second field in every version.
        unsafe { (&raw mut (*report).status).write(BAD_ABI) };
        return;
    }
    // SAFETY: the versions agree, so both are what their types say.
    let (request, report) = unsafe { (&*request, &mut *report) };
    // SAFETY: `Entry::call` made the request of valid parts.
    match unsafe { launch(request, kernel) } {
        Ok(stats) => report.stats = stats,
        Err(fault) => {
            report.status = fault.cause.class() as u32;
            let text = fault.to_string();
            let length = text.floor_char_boundary(MESSAGE);
            report.message[..length].copy_from_slice(&text.as_bytes()[..length]);
            report.message_len = length as u32;
        }
    }
}

/// # Safety
///
/// `request` must be as [`Entry::call`] makes it.
unsafe fn launch<A: Copy>(request: &RawRequest, kernel: impl Fn(A)) -> Result<Stats, Fault> {
    let (taken, given) = (mem::size_of::<A>(), request.arguments_len);
    // SAFETY: the parts of a string and of slices, as promised.
    let (name, blocks, buffers) = unsafe {
        (
            std::str::from_utf8_unchecked(slice::from_raw_parts(request.kernel, request.kernel_len)),
            slice::from_raw_parts(request.blocks, request.blocks_len),
            slice::from_raw_parts(request.buffers, request.buffers_len),
        )
    };
    let launch = Launch {
        kernel: name,
        grid: request.grid,
        threads: request.threads,
        cluster: request.cluster,
        shared_bytes: request.shared_bytes,
        blocks: if request.all_blocks == 0 { Blocks::Only(blocks) } else { Blocks::All },
        seed: request.seed,
        check_races: request.check_races != 0,
        budget: request.budget,
    };
    if given != taken {
        return Err(launch.fault(Place::Launch, Cause::Arguments { given, taken }));
    }
    // SAFETY: that many bytes were given, and any bytes make an `A`.
    let arguments = unsafe { request.arguments.cast::<A>().read_unaligned() };
    let buffers = buffers.iter().map(|raw| {
        // SAFETY: the parts of a string and of a buffer, as promised.
        unsafe {
            let name = std::str::from_utf8_unchecked(slice::from_raw_parts(raw.name, raw.name_len));
            Buffer::from_raw(name, raw.start, raw.bytes, raw.writable != 0)
        }
    });
    run(&launch, &mut buffers.collect::<Vec<_>>(), || kernel(arguments))
}

/// Why a call into a library gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The library was built for another version of this crate.
    #[error("the library speaks version {library} of the CPU machine's interface, this program {ABI_VERSION}")]
    Version {
        /// The library's version.
        library: u32,
    },
    /// The kernel faulted.
    #[error("{message}")]
    Fault {
        /// What kind of fault.
        class: Class,
        /// The text of the [`Fault`].
        message: String,
    },
    /// The library reported something that this version does not know.
    #[error("the library reported the unknown status {0}")]
    Status(u32),
}

/// An entry point of a library.
#[derive(Clone, Copy, Debug)]
pub struct Entry(EntryFn);

impl Entry {
    /// The entry at the address of a library's symbol.
    ///
    /// # Safety
    ///
    /// The symbol must be a function whose body is [`export`], and the library must stay loaded while the entry is used.
    pub unsafe fn new(symbol: *const c_void) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { mem::transmute::<*const c_void, EntryFn>(symbol) })
    }

    /// Runs the launch in the library. `arguments` are the bytes of the kernel's argument, whose pointers are addresses
    /// as of [`crate::address_of`].
    ///
    /// # Errors
    ///
    /// A fault, or a library of another version.
    pub fn call(&self, launch: &Launch<'_>, buffers: &mut [Buffer<'_>], arguments: &[u8]) -> Result<Stats, CallError> {
        let buffers: Vec<_> = buffers
            .iter()
            .map(|buffer| RawBuffer {
                name: buffer.name.as_ptr(),
                name_len: buffer.name.len(),
                start: buffer.start,
                bytes: buffer.bytes,
                writable: u32::from(buffer.writable),
            })
            .collect();
        let blocks = match launch.blocks {
            Blocks::All => &[],
            Blocks::Only(blocks) => blocks,
        };
        let request = RawRequest {
            abi: ABI_VERSION,
            grid: launch.grid,
            threads: launch.threads,
            cluster: launch.cluster,
            shared_bytes: launch.shared_bytes,
            seed: launch.seed,
            budget: launch.budget,
            check_races: u32::from(launch.check_races),
            all_blocks: u32::from(matches!(launch.blocks, Blocks::All)),
            blocks: blocks.as_ptr(),
            blocks_len: blocks.len(),
            kernel: launch.kernel.as_ptr(),
            kernel_len: launch.kernel.len(),
            buffers: buffers.as_ptr(),
            buffers_len: buffers.len(),
            arguments: arguments.as_ptr(),
            arguments_len: arguments.len(),
        };
        let mut report =
            RawReport { abi: 0, status: 0, message_len: 0, message: [0; MESSAGE], stats: Stats::default() };
        // SAFETY: the constructor's caller vouches for the function; both pointers are valid for the call.
        unsafe { (self.0)(&request, &mut report) };
        match report.status {
            0 => Ok(report.stats),
            BAD_ABI => Err(CallError::Version { library: report.abi }),
            status => {
                let message = &report.message[..(report.message_len as usize).min(MESSAGE)];
                let message = String::from_utf8_lossy(message).into_owned();
                let class = Class::ALL.into_iter().find(|&class| class as u32 == status);
                Err(class.map_or(CallError::Status(status), |class| CallError::Fault { class, message }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address_of, load_global, store_global, thread_idx, trap};

    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Arguments {
        from: u64,
        to: u64,
        add: u32,
        trap: u32,
    }

    unsafe extern "C" fn add(request: *const RawRequest, report: *mut RawReport) {
        let kernel = |arguments: Arguments| {
            if arguments.trap != 0 {
                trap(&"é".repeat(MESSAGE));
            }
            let at = u64::from(4 * thread_idx());
            let sum = u32::from_le_bytes(load_global(arguments.from + at)) + arguments.add;
            store_global(arguments.to + at, sum.to_le_bytes());
        };
        // SAFETY: called by `Entry::call` alone.
        unsafe { export(request, report, kernel) }
    }

    unsafe extern "C" fn from_the_future(_: *const RawRequest, report: *mut RawReport) {
        // SAFETY: called by `Entry::call` alone.
        unsafe { ((*report).abi, (*report).status) = (ABI_VERSION + 1, BAD_ABI) };
    }

    fn entry(function: EntryFn) -> Entry {
        // SAFETY: each ends with what `export` promises.
        unsafe { Entry::new(function as *const c_void) }
    }

    fn bytes(arguments: &[u64]) -> Vec<u8> {
        arguments.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn runs_with_arguments_and_buffers() {
        let input: Vec<u8> = (0..32u32).flat_map(u32::to_le_bytes).collect();
        let mut output = [0; 128];
        let buffers = &mut [Buffer::read("input", &input), Buffer::write("output", &mut output)];
        let arguments = bytes(&[address_of(0), address_of(1), 7]);
        let stats = entry(add).call(&Launch::new("add", 1, 32), buffers, &arguments).unwrap();
        assert_eq!(stats.global_loads, 32);
        assert_eq!(output[124..], 38u32.to_le_bytes());
    }

    #[test]
    fn reports_faults_with_their_class() {
        let call = |arguments: &[u64]| entry(add).call(&Launch::new("add", 2, 32), &mut [], &bytes(arguments));
        let CallError::Fault { class: Class::Memory, message } = call(&[0, 0, 0]).unwrap_err() else { panic!() };
        assert!(message.starts_with("kernel add, block 0, thread "), "{message}");
        // Cut between characters.
        let CallError::Fault { class: Class::Abort, message } = call(&[0, 0, 1 << 32]).unwrap_err() else { panic!() };
        assert!(message.ends_with('é') && message.len() >= MESSAGE - 1, "{message}");
        let CallError::Fault { class: Class::Launch, message } = call(&[0, 0]).unwrap_err() else { panic!() };
        assert_eq!(message, "kernel add: 16 bytes of arguments given, the kernel takes 24");
    }

    #[test]
    fn refuses_another_version() {
        let launch = Launch::new("add", 1, 32);
        assert_eq!(
            entry(from_the_future).call(&launch, &mut [], &[]),
            Err(CallError::Version { library: ABI_VERSION + 1 })
        );
        let request = RawRequest {
            abi: ABI_VERSION + 1,
            // SAFETY: numbers and pointers that are not looked at.
            ..unsafe { mem::zeroed() }
        };
        let mut report =
            RawReport { abi: 0, status: 0, message_len: 0, message: [0; MESSAGE], stats: Stats::default() };
        // SAFETY: both are valid; of the request only the version is read.
        unsafe { add(&request, &mut report) };
        assert_eq!((report.abi, report.status), (ABI_VERSION, BAD_ABI));
    }
}
