//! Symbols that jump through slots.
//!
//! A symbol loads its number and jumps to its slot. Every slot first holds `bind`, which keeps the argument registers,
//! asks [`resolve`] for the driver's function, and jumps on: arguments, however many, stay where the caller put them.
//! No function of the driver here takes floating-point arguments by value, so vector registers need no keeping.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::library::library;
use crate::symbols::NAMES;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("driver-shim knows the calling conventions of x86_64 and aarch64 Linux only");

/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: c_int = 100;
/// `CUDA_ERROR_NOT_SUPPORTED`.
const NOT_SUPPORTED: c_int = 801;

/// Defines one exported symbol per name, and `NAMES`.
macro_rules! define {
    ($($name:ident)*) => {
        #[allow(non_camel_case_types, clippy::enum_variant_names, reason = "the driver's names")]
        #[derive(Clone, Copy)]
        enum Index { $($name),* }

        /// Names of the symbols, by the number of their slot.
        pub(crate) const NAMES: &[&std::ffi::CStr] = &[$(
            match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("an identifier holds no NUL"),
            }
        ),*];

        $(
            // SAFETY: nothing else in the program may define the driver's symbols; that is this crate's purpose.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            #[allow(non_snake_case, reason = "the driver's names")]
            unsafe extern "C" fn $name() {
                $crate::trampoline::jump!(Index::$name as usize)
            }
        )*
    };
}
pub(crate) use define;

#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    ($index:expr) => {
        std::arch::naked_asm!(
            "mov r10d, {index}",
            "lea r11, [rip + {slots}]",
            "jmp qword ptr [r11 + 8 * r10]",
            index = const $index,
            slots = sym $crate::trampoline::SLOTS,
        )
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    ($index:expr) => {
        std::arch::naked_asm!(
            "mov x17, #{index}",
            "adrp x16, {slots}",
            "add x16, x16, :lo12:{slots}",
            "ldr x16, [x16, x17, lsl #3]",
            "br x16",
            index = const $index,
            slots = sym $crate::trampoline::SLOTS,
        )
    };
}
pub(crate) use jump;

/// Where each symbol jumps to.
pub(crate) static SLOTS: [AtomicPtr<c_void>; NAMES.len()] =
    [const { AtomicPtr::new(bind as *const c_void as *mut c_void) }; NAMES.len()];

/// Where a slot leads at first. The symbol's number is in r10, the arguments where the caller put them.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn bind() {
    // Seven registers and the return address leave the stack aligned to 16 bytes, as a call needs it.
    std::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "push rax",
        "mov rdi, r10",
        "call {resolve}",
        "mov r11, rax",
        "pop rax",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "jmp r11",
        resolve = sym resolve,
    )
}

/// Where a slot leads at first. The symbol's number is in x17, the arguments where the caller put them.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn bind() {
    std::arch::naked_asm!(
        "stp x29, x30, [sp, #-96]!",
        "stp x0, x1, [sp, #16]",
        "stp x2, x3, [sp, #32]",
        "stp x4, x5, [sp, #48]",
        "stp x6, x7, [sp, #64]",
        "str x8, [sp, #80]",
        "mov x0, x17",
        "bl {resolve}",
        "mov x16, x0",
        "ldr x8, [sp, #80]",
        "ldp x6, x7, [sp, #64]",
        "ldp x4, x5, [sp, #48]",
        "ldp x2, x3, [sp, #32]",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #96",
        "br x16",
        resolve = sym resolve,
    )
}

/// The driver's function for a slot, or one that says what is missing. It is kept in the slot.
extern "C" fn resolve(index: usize) -> *mut c_void {
    let target = match library() {
        Err(_) => no_driver as *const c_void as *mut c_void,
        Ok(library) => find(library, NAMES[index]).unwrap_or(not_in_this_driver as *const c_void as *mut c_void),
    };
    SLOTS[index].store(target, Ordering::Relaxed);
    target
}

fn find(library: &libloading::Library, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the symbol is only taken as an address; its caller knows its type.
    let symbol = unsafe { library.get::<*mut c_void>(name) }.ok()?;
    // SAFETY: the library is never closed, so the address outlives the symbol's borrow.
    let address = unsafe { symbol.try_as_raw_ptr() }?;
    Some(address)
}

extern "C" fn no_driver() -> c_int {
    NO_DEVICE
}

extern "C" fn not_in_this_driver() -> c_int {
    NOT_SUPPORTED
}
