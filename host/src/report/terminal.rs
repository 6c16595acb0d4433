//! The table at the end of a run.

use std::fmt::Write;

use super::words;
use crate::{evolve::outcome::Outcome, measure::statistics};

/// The table, and where the rest is.
pub fn table(outcome: &Outcome, report: &str) -> String {
    let mut out = String::new();
    let mut line = |label: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{label:<18} {text}");
    };
    if let Some(winner) = outcome.trial(outcome.winner) {
        line("winner", &format!("trial {}: {}", winner.number, winner.candidate()));
        let us = statistics::median(&outcome.winner_hot_us);
        line("hot", &format!("{}, {:.1} TFLOP/s", words::times(&outcome.winner_hot_us), words::tflops(outcome, us)));
        if !outcome.winner_cold_us.is_empty() {
            line("cold", &words::times(&outcome.winner_cold_us));
        }
        if let Some(facts) = &winner.facts {
            let geometry = &winner.identity.geometry;
            line(
                "launch",
                &format!(
                    "{} blocks of {} threads, {} registers, {} B of shared memory",
                    geometry.blocks, geometry.threads, facts.registers, geometry.shared_bytes
                ),
            );
            if let Some(machine) = facts.machine {
                line("main loop", &words::main_loop(machine));
            }
        }
    }
    if let Some(text) = words::overturned(outcome) {
        line("overturned", &text);
    }
    let correctness = &outcome.correctness;
    line(
        "correct",
        &format!(
            "{} cases, largest error {:.1e}, at most {:.0} % of the budget",
            correctness.cases,
            correctness.max_abs_error,
            100.0 * correctness.budget_used
        ),
    );
    line("times", &outcome.times);
    for claim in &outcome.claims {
        line(&format!("vs {}", claim.against), &format!("{} {}", words::interval(&claim.ratio), words::finding(claim)));
    }
    let noise = &outcome.noise;
    line(
        "noise floor",
        &format!(
            "A/A {}, sample sd {:.2} %, drift {:.2} %; claimable below {:.3}",
            words::interval(&noise.ratio),
            100.0 * noise.spread,
            100.0 * (noise.drift - 1.0),
            noise.claimable()
        ),
    );
    let free: Vec<String> =
        outcome.budget.free.iter().map(|(reason, count)| format!("{count} {}", reason.name())).collect();
    let free = if free.is_empty() { "none".to_owned() } else { free.join(", ") };
    line(
        "trials",
        &format!("{} of {}, from {} variants", outcome.budget.spent, outcome.budget.trials, outcome.space_size),
    );
    line("cost no trial", &free);
    if let Some(text) = words::earlier(outcome) {
        line("learnt from", &text);
    }
    for note in outcome.peers.notes.iter().chain(&outcome.notes) {
        line("note", note);
    }
    if !outcome.executed.is_empty() {
        line("executed", &words::executed(outcome));
    }
    line("report", report);
    out
}
