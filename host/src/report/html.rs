//! One self-contained HTML file: no script, no font, nothing fetched; readable on a phone and in the dark.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::{
    svg::{Plot, log_ticks},
    words,
};
use crate::{
    evolve::{insight::Effect, outcome::Outcome, trial::Trial},
    measure::{roofline::Position, statistics},
};

pub(super) const STYLE: &str = include_str!("report.css");
/// Effects shown: the clearest.
const EFFECTS: usize = 24;

/// The report's text.
pub fn page(outcome: &Outcome) -> String {
    let sections = [
        headline(outcome),
        claims(outcome),
        section("Convergence", &convergence(outcome)),
        section("Elites", &elites(outcome)),
        section("What each gene is worth", &effects(outcome)),
        section("What it learnt", &rules(outcome)),
        section("What cost no trial", &refusals(outcome)),
        section("All trials", &trials(outcome)),
        section("Environment", &environment(outcome)),
    ];
    format!(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>\
         <meta name='viewport' content='width=device-width, initial-scale=1'>\
         <title>EvoAttn: {problem}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n",
        problem = escape(&outcome.run.problem.to_string()),
        body = sections.concat(),
    )
}

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn section(title: &str, body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("<section><h2>{title}</h2>{body}</section>") }
}

/// A table whose cells are HTML already.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let head: String = head.iter().map(|cell| format!("<th>{cell}</th>")).collect();
    let rows: String = rows
        .into_iter()
        .map(|row| format!("<tr>{}</tr>", row.iter().map(|cell| format!("<td>{cell}</td>")).collect::<String>()))
        .collect();
    format!("<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>")
}

/// Text that gets room enough for a few words to a line, however narrow the page.
fn in_words(text: &str) -> String {
    format!("<span class='words'>{}</span>", escape(text))
}

/// Text that is not broken into lines.
fn unbroken(text: &str) -> String {
    format!("<span class='unbroken'>{text}</span>")
}

fn headline(outcome: &Outcome) -> String {
    let us = statistics::median(&outcome.winner_hot_us);
    let winner = outcome.trial(outcome.winner).map(|trial| trial.candidate().to_string()).unwrap_or_default();
    let noise = &outcome.noise;
    format!(
        "<header><h1>{us:.2} us <small>{tflops:.1} TFLOP/s</small></h1>\
         <p><code>{problem}</code></p><p class='genes'><code>{winner}</code></p>\
         <p>Times are {times}.</p>{overturned}\
         <p>Hot {hot}{cold}. Noise floor: the first incumbent against itself took {aa} times its own time; \
         only ratios below {claimable:.3} can be claimed. Drift {drift:+.2} %.</p>\
         <p>The winner passed {cases} cases in a fresh process; its largest error against fp64 is {error:.1e}, \
         {used:.0} % of the budget.</p></header>",
        tflops = words::tflops(outcome, us),
        problem = escape(&outcome.run.problem.to_string()),
        winner = escape(&winner),
        times = escape(&outcome.times),
        overturned = words::overturned(outcome).map(|text| format!("<p>{}.</p>", escape(&text))).unwrap_or_default(),
        hot = words::times(&outcome.winner_hot_us),
        cold = if outcome.winner_cold_us.is_empty() {
            String::new()
        } else {
            format!(", with a flushed L2 {}", words::times(&outcome.winner_cold_us))
        },
        aa = words::interval(&noise.ratio),
        claimable = noise.claimable(),
        drift = 100.0 * (noise.drift - 1.0),
        cases = outcome.correctness.cases,
        error = outcome.correctness.max_abs_error,
        used = 100.0 * outcome.correctness.budget_used,
    )
}

fn claims(outcome: &Outcome) -> String {
    let rows = outcome.claims.iter().map(|claim| {
        let cold = claim.cold.as_ref().map(words::interval).unwrap_or_default();
        let level = format!("{:.1} %", 100.0 * claim.level);
        let numbers = [words::interval(&claim.ratio), cold, level].map(|text| unbroken(&text));
        [in_words(&claim.against), words::finding(claim).to_owned()].into_iter().chain(numbers).collect()
    });
    let table = table(&["winner against", "", "ratio of times", "ratio, cold", "level"], rows);
    let note = "<p>On fresh samples, from sittings in fresh processes. A ratio below 1 means the winner is faster; the \
                first incumbent was timed in turns with it, others before and after.</p>";
    section("Claims", &format!("{table}{note}"))
}

fn convergence(outcome: &Outcome) -> String {
    let trials = &outcome.trials;
    let peers = outcome.peers.peers.iter().map(|peer| (peer, statistics::median(&peer.hot_us)));
    let all: Vec<f64> = trials.iter().map(|trial| trial.us).chain(peers.clone().map(|(_, us)| us)).collect();
    let low = all.iter().copied().fold(f64::INFINITY, f64::min) * 0.95;
    let high = all.iter().copied().fold(0.0, f64::max) * 1.05;
    let last = trials.len() as f64;
    let mut plot = Plot::new([0.0, last], [low, high], true, 360.0);
    log_ticks([low, high]).into_iter().for_each(|us| plot.tick_y(us, &format!("{us}")));
    for number in (0..=trials.len()).step_by((trials.len() / 9).max(1)) {
        plot.tick_x(number as f64, &number.to_string());
    }
    peers.clone().for_each(|(_, us)| plot.line(&[(0.0, us), (last, us)], "peer"));
    let mut best = f64::INFINITY;
    let mut steps = Vec::new();
    for (i, trial) in trials.iter().enumerate() {
        if trial.us < best {
            if best.is_finite() {
                steps.push((i as f64 + 1.0, best));
            }
            best = trial.us;
        }
        steps.push((i as f64 + 1.0, best));
    }
    plot.line(&steps, "best");
    for (i, trial) in trials.iter().enumerate() {
        let title = format!("#{} {:.2} us {}", trial.number, trial.us, trial.candidate());
        plot.dot(i as f64 + 1.0, trial.us, trial.variant.family().name(), &title);
    }
    plot.labels(peers.clone().map(|(peer, us)| (us, format!("{} {us:.2} us", peer.name))).collect());
    let families: BTreeSet<&str> = trials.iter().map(|trial| trial.variant.family().name()).collect();
    let mut keys: String =
        families.iter().map(|family| format!("<span class='key {family}'>{family}</span> ")).collect();
    keys += "<span class='key best'>best so far</span>";
    if peers.clone().count() > 0 {
        keys += " <span class='key peer'>others</span>";
    }
    let recorded: BTreeSet<&str> = peers.filter_map(|(peer, _)| peer.recorded.as_deref()).collect();
    let recorded: String = recorded.iter().map(|when| format!("; others as recorded {}", escape(when))).collect();
    format!(
        "{}<p class='keys'>{keys} &middot; microseconds over trials{recorded}</p>",
        plot.finish("time of each trial and the best so far")
    )
}

fn elites(outcome: &Outcome) -> String {
    let line = |trial: &Trial| {
        let origin = escape(&words::origin(outcome, trial));
        format!("#{} <b>{:.2} us</b> {origin}", trial.number, trial.us)
    };
    let elite = |number: &usize| {
        let trial = outcome.trial(*number)?;
        let mut ancestors = String::new();
        let mut seen = vec![*number];
        let mut parents = trial.parents.clone();
        while let Some(number) = parents.pop() {
            if let (false, Some(ancestor)) = (seen.contains(&number), outcome.trial(number)) {
                seen.push(number);
                parents.extend(&ancestor.parents);
                let _ = write!(ancestors, "<li>{}</li>", line(ancestor));
            }
        }
        let lineage = if ancestors.is_empty() {
            String::new()
        } else {
            let count = seen.len() - 1;
            let noun = if count == 1 { "ancestor" } else { "ancestors" };
            format!("<details><summary>{count} {noun}</summary><ul>{ancestors}</ul></details>")
        };
        let roofline = words::roofline(outcome, trial.us);
        let genes = escape(&trial.candidate().to_string());
        Some(format!("<li>{}, {roofline}<br><code>{genes}</code>{lineage}</li>", line(trial)))
    };
    let elites: String = outcome.elites.iter().filter_map(elite).collect();
    let note = if Position::of(&outcome.run.problem, &outcome.run.device.name, 1.0).is_none() {
        ""
    } else {
        "<p>Peaks are the GPU's by its datasheet. Bytes count once for each tensor, wherever they come from: repeated \
         launches find what fits in L2. What would reach its peak first bounds the problem.</p>"
    };
    format!("<ol>{elites}</ol>{note}")
}

fn effects(outcome: &Outcome) -> String {
    let shown: Vec<&Effect> = outcome.effects.iter().take(EFFECTS).collect();
    if shown.is_empty() {
        return String::new();
    }
    let low = shown.iter().map(|effect| effect.ratio.low).fold(0.95, f64::min);
    let high = shown.iter().map(|effect| effect.ratio.high).fold(1.05, f64::max);
    let mut plot = Plot::new([low, high], [0.0, shown.len() as f64], false, 44.0 + 34.0 * shown.len() as f64);
    plot.line(&[(1.0, 0.0), (1.0, shown.len() as f64)], "one");
    for tick in [low, 1.0, high] {
        plot.tick_x(tick, &format!("{tick:.2}"));
    }
    for (i, effect) in shown.iter().enumerate() {
        // The name stands above the interval, so that both have the whole width.
        let top = (shown.len() - i) as f64;
        let y = top - 0.7;
        let Effect { family, gene, value, trials, ratio } = effect;
        let class = family.name();
        plot.text(low, top - 0.45, &format!("{family} {}={value} ({trials})", gene.name()));
        plot.line(&[(ratio.low, y), (ratio.high, y)], class);
        plot.dot(ratio.estimate, y, class, &words::interval(ratio));
    }
    format!(
        "{}<p>Time relative to the average over the gene's domain, all other genes averaged over theirs, \
         with 95 % intervals of a model of the trials' times; in brackets the trials that had the value.</p>",
        plot.finish("effect of each gene's values")
    )
}

fn rules(outcome: &Outcome) -> String {
    let earlier = words::earlier(outcome).map(|text| format!("from earlier measurements: {text}"));
    let rules = outcome.rules.iter().map(|rule| rule.text.clone());
    let rules: String = earlier.into_iter().chain(rules).map(|text| format!("<li>{}</li>", escape(&text))).collect();
    if rules.is_empty() { rules } else { format!("<ul>{rules}</ul>") }
}

fn refusals(outcome: &Outcome) -> String {
    let mut by_reason: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for refusal in &outcome.refusals {
        let candidate = refusal.variant.map(|candidate| format!("<code>{}</code><br>", escape(&candidate.to_string())));
        let line = format!("<li>{}{}</li>", candidate.unwrap_or_default(), escape(&refusal.why));
        by_reason.entry(refusal.reason).or_default().push(line);
    }
    let details = by_reason.iter().map(|(reason, lines)| {
        let summary = format!("{} {}", lines.len(), reason.name());
        format!("<details><summary>{summary}</summary><ul>{}</ul></details>", lines.concat())
    });
    details.collect()
}

fn trials(outcome: &Outcome) -> String {
    let rows = outcome.trials.iter().map(|trial| {
        let registers = trial.facts.as_ref().map(|facts| facts.registers.to_string()).unwrap_or_default();
        let main_loop = trial.facts.as_ref().and_then(|facts| facts.machine).map(words::main_loop).unwrap_or_default();
        vec![
            trial.number.to_string(),
            trial.generation.to_string(),
            format!("{:.2}", trial.us),
            unbroken(&words::interval(&trial.ratio)),
            registers,
            unbroken(&main_loop),
            in_words(&words::origin(outcome, trial)),
            format!("<code>{}</code>", escape(&trial.candidate().to_string())),
        ]
    });
    let head = [
        "#",
        "generation",
        "us",
        "ratio to its incumbent, in one sitting",
        "registers",
        "main loop",
        "made by",
        "variant",
    ];
    format!("<details><summary>{} trials</summary>{}</details>", outcome.trials.len(), table(&head, rows))
}

fn environment(outcome: &Outcome) -> String {
    let run = &outcome.run;
    let settings = &run.settings;
    let fact = |name: &str, value: String| vec![name.to_owned(), escape(&value)];
    let mut rows = vec![
        fact("device", format!("{} ({:?})", run.device.name, run.device.kind)),
        fact("driver", run.device.driver.clone()),
        fact("uuid", run.device.uuid.clone()),
        fact("compiler", run.toolchain.clone()),
        fact("space", format!("{} variants, {}", outcome.space_size, run.space)),
        fact("strategy", format!("{}, seed {}", settings.strategy.name(), settings.seed)),
        fact("trials", format!("{} of {}", outcome.budget.spent, outcome.budget.trials)),
        fact(
            "rounds",
            format!(
                "{} per trial; A/A test and claims {} sittings of {}",
                settings.rounds, settings.sittings, settings.sitting_rounds
            ),
        ),
    ];
    if !outcome.executed.is_empty() {
        rows.push(fact("executed", words::executed(outcome)));
    }
    rows.extend(outcome.peers.notes.iter().chain(&outcome.notes).map(|note| fact("note", note.clone())));
    table(&["", ""], rows)
}
