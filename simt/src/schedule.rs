//! Which thread runs when.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use corosensei::Coroutine;
use corosensei::stack::DefaultStack;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::machine::{Installed, Machine, is_running, peek};
use crate::{Cause, Fault, Place, WARP};

/// Stack of a thread. Register tiles live there, several times over where nothing is optimised; pages never touched cost
/// nothing.
const STACK_BYTES: usize = 256 << 10;

type Thread = Coroutine<(), (), (), DefaultStack>;

thread_local! {
    static POOL: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
    /// Where the panic under way happened.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Stacks for the threads of a block, kept from launch to launch.
pub(crate) struct Stacks(Vec<DefaultStack>);

impl Stacks {
    /// Takes enough stacks for `threads` threads.
    pub(crate) fn take(threads: u32) -> Result<Self, Cause> {
        let mut stacks = Self(POOL.take());
        while stacks.0.len() < threads as usize {
            stacks.0.push(DefaultStack::new(STACK_BYTES).map_err(|error| Cause::Stack(error.to_string()))?);
        }
        Ok(stacks)
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        POOL.with_borrow_mut(|pool| pool.append(&mut self.0));
    }
}

/// Runs one block to its end.
pub(crate) fn run_block(
    machine: &mut Machine<'_>,
    block: u32,
    rng: &mut ChaCha8Rng,
    stacks: &mut Stacks,
    kernel: &impl Fn(),
) -> Result<(), Fault> {
    silence_panics();
    machine.begin(block);
    let launch = machine.launch;
    let _installed = Installed::new(machine);
    let mut threads: Vec<Thread> = stacks
        .0
        .drain(..launch.threads as usize)
        .map(|stack| {
            // SAFETY: the coroutine borrows `kernel` alone, and `finish` below ends it before this function returns.
            unsafe { Coroutine::with_stack_unchecked(stack, |yielder, ()| live(yielder, kernel)) }
        })
        .collect();
    let outcome = turns(&mut threads, rng);
    stacks.0.extend(threads.into_iter().map(finish));
    outcome.map_err(|fault| *fault)
}

/// Lets warps take turns until all threads have exited or one faults.
fn turns(threads: &mut [Thread], rng: &mut ChaCha8Rng) -> Result<(), Box<Fault>> {
    let mut living = threads.len();
    while living > 0 {
        let runnable = peek(|machine| machine.runnable);
        if runnable == 0 {
            return Err(peek(|machine| {
                let cause = Cause::Deadlock(machine.describe_deadlock());
                Box::new(machine.launch.fault(Place::Block(machine.block), cause))
            }));
        }
        let random = rng.next_u32();
        let warp = pick(runnable, random);
        let first = random % WARP;
        let mut lanes = peek(|machine| machine.warps[warp as usize].ready).rotate_right(first);
        while lanes != 0 {
            let thread = warp * WARP + (lanes.trailing_zeros() + first) % WARP;
            lanes &= lanes - 1;
            peek(|machine| {
                machine.thread = thread;
                machine.stats.switches += 1;
            });
            let exited = threads[thread as usize].resume(()).as_return().is_some();
            living -= usize::from(exited);
            if let Some(fault) = peek(|machine| machine.fault.take()) {
                return Err(fault);
            }
        }
    }
    Ok(())
}

/// A set bit, chosen by the upper half of a random number.
fn pick(mut set: u32, random: u32) -> u32 {
    let skip = ((random >> 16) * set.count_ones()) >> 16;
    for _ in 0..skip {
        set &= set - 1;
    }
    set.trailing_zeros()
}

/// The whole life of a thread.
fn live(yielder: &corosensei::Yielder<(), ()>, kernel: &impl Fn()) {
    peek(|machine| machine.yielders[machine.thread as usize] = yielder);
    let end = catch_unwind(AssertUnwindSafe(kernel));
    peek(|machine| {
        // A thread that `finish` unwinds ends here, too; its launch has its fault already.
        let outcome = match end {
            Ok(()) => machine.exit(),
            Err(payload) => machine.fault(Cause::Panic(panic_text(&*payload))),
        };
        machine.fault = machine.fault.take().or(outcome.err());
    });
}

/// Ends a thread wherever it is, and takes its stack back.
fn finish(mut thread: Thread) -> DefaultStack {
    thread.force_unwind();
    thread.into_stack()
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    match PANICKED_AT.take() {
        Some(place) => format!("{text} at {place}"),
        None => text,
    }
}

/// Keeps panics of kernels off the terminal: they are reported as faults.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if is_running() {
                PANICKED_AT.set(info.location().map(ToString::to_string));
            } else {
                former(info);
            }
        }));
    });
}
