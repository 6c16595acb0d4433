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
use crate::{Cause, Fault, WARP};

/// Stack of a thread. Register tiles live there, several times over where nothing is optimised; pages never touched cost
/// nothing.
const STACK_BYTES: usize = 256 << 10;

type Thread = Coroutine<(), (), (), DefaultStack>;

thread_local! {
    static POOL: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
    /// Where the panic under way happened.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Stacks for the threads of a cluster, kept from launch to launch.
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

/// Runs the blocks of one cluster to their end.
pub(crate) fn run_cluster(
    machine: &mut Machine<'_>,
    cluster: u32,
    rng: &mut ChaCha8Rng,
    stacks: &mut Stacks,
    kernel: &impl Fn(),
) -> Result<(), Fault> {
    silence_panics();
    machine.begin(cluster);
    let together = machine.warps.len() * WARP as usize;
    let _installed = Installed::new(machine);
    let mut threads: Vec<Thread> = stacks
        .0
        .drain(..together)
        .map(|stack| {
            // SAFETY: the coroutine borrows `kernel` alone, and `finish` below ends it before this function returns.
            unsafe { Coroutine::with_stack_unchecked(stack, |yielder, ()| live(yielder, kernel)) }
        })
        .collect();
    let outcome = turns(&mut threads, rng);
    stacks.0.extend(threads.into_iter().map(finish));
    outcome.map_err(|fault| *fault)
}

/// Lets warps take turns until all threads have exited or one faults. Copies that are under way take turns, too.
fn turns(threads: &mut [Thread], rng: &mut ChaCha8Rng) -> Result<(), Box<Fault>> {
    let mut living = threads.len();
    while living > 0 {
        let (runnable, copies) = peek(|machine| (machine.runnable, machine.bulk_copies.len() as u32));
        let random = rng.next_u32();
        let warps = runnable.count_ones();
        let turn = choose(random >> 16, warps + u32::from(copies > 0));
        if turn >= warps {
            match copies {
                0 => return Err(peek(|machine| machine.deadlock())),
                _ => peek(|machine| machine.deliver(choose(random & 0xffff, copies) as usize))?,
            }
            continue;
        }
        let warp = member(runnable, turn);
        let first = random % WARP;
        let mut lanes = peek(|machine| machine.warps[warp as usize].ready).rotate_right(first);
        while lanes != 0 {
            let thread = warp * WARP + (lanes.trailing_zeros() + first) % WARP;
            lanes &= lanes - 1;
            peek(|machine| {
                machine.switch_to(thread);
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

/// A number below `count` for one of 16 random bits.
fn choose(random: u32, count: u32) -> u32 {
    (random * count) >> 16
}

/// The member of a set that so many others precede.
fn member(mut set: u128, preceding: u32) -> u32 {
    for _ in 0..preceding {
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
