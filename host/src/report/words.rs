//! Numbers and names as every report writes them.

use builder::Machine;
use spec::Variant;

use crate::{
    evolve::{
        claims::{Claim, Finding},
        earlier::Lesson,
        outcome::{Execution, Outcome, Overturned},
        trial::{Operator, Trial},
    },
    measure::{
        roofline::Position,
        statistics::{self, Interval},
    },
};

/// `0.612 [0.605, 0.620]`, or the estimate alone where nothing bounds it.
pub(super) fn interval(interval: &Interval) -> String {
    let Interval { low, estimate, high } = interval;
    if low == high { format!("{estimate:.3}") } else { format!("{estimate:.3} [{low:.3}, {high:.3}]") }
}

/// What a claim says.
pub(super) fn finding(claim: &Claim) -> &'static str {
    match claim.finding {
        Finding::Faster => "faster",
        Finding::Slower => "slower",
        Finding::NoClaim => "no claim: not told apart from noise",
        Finding::Context => "context only",
    }
}

/// What selection chose and fresh samples did not bear out.
pub(super) fn overturned(outcome: &Outcome) -> Option<String> {
    let Overturned { number, claim } = outcome.overturned.as_ref()?;
    let variant = outcome.trial(*number).map(|trial| trial.candidate().to_string()).unwrap_or_default();
    Some(format!(
        "selection chose trial {number}, {variant}, but fresh samples show it slower than the first incumbent ({}): \
         the first incumbent is the winner",
        interval(&claim.ratio)
    ))
}

/// Median and deviation of times.
pub(super) fn times(us: &[f64]) -> String {
    format!("{:.2} us (sd {:.2})", statistics::median(us), statistics::deviation(us))
}

/// TFLOP/s at this time.
pub(super) fn tflops(outcome: &Outcome, us: f64) -> f64 {
    outcome.run.problem.flops() as f64 / us / 1e6
}

/// Throughput at this time and where that lies under the GPU's peaks, if they are known.
pub(super) fn roofline(outcome: &Outcome, us: f64) -> String {
    let rate = format!("{:.1} TFLOP/s", tflops(outcome, us));
    let Some(position) = Position::of(&outcome.run.problem, &outcome.run.device.name, us) else { return rate };
    let bound = if position.is_bound_by_memory() { "memory bounds it" } else { "matrix products bound it" };
    let [matrix, memory] = [position.matrix, position.memory].map(|share| 100.0 * share);
    format!("{rate}: {matrix:.1} % of the matrix peak, {memory:.1} % of memory bandwidth, {bound}")
}

/// What the main loop of a kernel consists of.
pub(super) fn main_loop(machine: Machine) -> String {
    let Machine { loop_instructions, loop_moves, loop_spills, .. } = machine;
    format!("{loop_instructions} instructions, {loop_moves} moves, {loop_spills} spills")
}

/// How a trial came to be: its operator and the genes that differ from its first parent.
pub(super) fn origin(outcome: &Outcome, trial: &Trial) -> String {
    let operator = match trial.operator {
        Operator::Central => "middle of its family",
        Operator::Spread => "far from the others",
        Operator::Draw => "drawn",
        Operator::Next => "next in order",
        Operator::Mutation => "mutation",
        Operator::Crossover => "crossover",
        Operator::External => "named outside",
        Operator::Edited(_) => "rewritten outside",
    };
    let parents: Vec<String> = trial.parents.iter().map(|number| format!("#{number}")).collect();
    let changed = trial.parents.first().and_then(|number| outcome.trial(*number));
    let changed = changed.map(|parent| changes(&parent.variant, &trial.variant)).unwrap_or_default();
    [operator.to_owned(), parents.join(" x "), changed].iter().filter(|part| !part.is_empty()).fold(
        String::new(),
        |mut all, part| {
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str(part);
            all
        },
    )
}

/// The files that a run or a comparison learnt from beforehand; `None` if there were none.
pub(super) fn lessons(lessons: &[Lesson]) -> Option<String> {
    let lesson =
        |Lesson { file, problem, gpu, times, .. }: &Lesson| format!("{file} ({times} variants of {problem} on {gpu})");
    let all: Vec<String> = lessons.iter().map(lesson).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// What was learnt beforehand, and how far it held.
pub(super) fn earlier(outcome: &Outcome) -> Option<String> {
    let lessons = lessons(&outcome.run.learnt_from)?;
    let weight = 100.0 * outcome.earlier_weight.unwrap_or_default();
    Some(format!("{lessons}; {weight:.0} % of the differences found there hold here"))
}

/// What ran on the CPU machine, and the first that failed there.
pub(super) fn executed(outcome: &Outcome) -> String {
    let correct = outcome.executed.iter().filter(|execution| execution.result.is_ok()).count();
    let all = outcome.executed.len();
    let mut text = format!("{correct} of {all} kernels of generation 0 and the winner are correct on the CPU machine");
    if let Some(Execution { variant, result: Err(failure) }) = outcome.executed.iter().find(|e| e.result.is_err()) {
        text += &format!("; {variant}: {failure}");
    }
    text
}

fn changes(from: &Variant, to: &Variant) -> String {
    let changed: Vec<String> = to
        .genes()
        .filter_map(|(gene, value)| {
            let old = from.get(gene)?;
            (old != value).then(|| format!("{} {old}->{value}", gene.name()))
        })
        .collect();
    if changed.is_empty() { String::new() } else { format!("({})", changed.join(", ")) }
}
