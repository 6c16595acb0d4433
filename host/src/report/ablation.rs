//! Strategies compared: a table for the terminal, and one self-contained HTML file.

use std::fmt::Write;

use super::{
    html::{STYLE, escape},
    svg::Plot,
    words,
};
use crate::evolve::{
    ablation::{Ablation, CLOSE, OnRecord},
    strategy::Kind,
};

/// A line per strategy and record.
pub fn table(ablation: &Ablation) -> String {
    let mut out = String::new();
    for record in &ablation.records {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}\n  {}", record.record, truth(record));
        for line in strategies(ablation, record) {
            let _ = writeln!(out, "  {line}");
        }
        if let Some(text) = ratio(record) {
            let _ = writeln!(out, "  {text}");
        }
    }
    out
}

/// The page.
pub fn page(ablation: &Ablation) -> String {
    let plan = &ablation.plan;
    let sections: String = ablation
        .records
        .iter()
        .map(|record| {
            let lines: String =
                strategies(ablation, record).iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
            let ratio = ratio(record).map(|text| format!("<p><b>{}</b></p>", escape(&text))).unwrap_or_default();
            format!(
                "<section><h2><code>{problem}</code></h2><p>{file}: {provenance}. {truth}</p>{plot}\
                 <p class='keys'>{keys} &middot; share of seeds that arrived, over trials</p><ul>{lines}</ul>{ratio}</section>",
                problem = escape(&record.problem.to_string()),
                file = escape(&record.record),
                provenance = escape(&record.provenance),
                truth = escape(&truth(record)),
                plot = plot(record, plan.trials),
                keys = keys(record),
            )
        })
        .collect();
    format!(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>\
         <meta name='viewport' content='width=device-width, initial-scale=1'>\
         <title>EvoAttn: strategies compared</title><style>{STYLE}</style></head><body><main>\
         <header><h1>Is evolution better than random?</h1><p>{seeds} seeds of each strategy, {trials} trials each, \
         population {population}, on records of real measurements. A run has arrived once it measured a variant within \
         {percent:.0} % of the best.</p></header>{sections}</main></body></html>\n",
        seeds = plan.seeds,
        trials = plan.trials,
        population = plan.population,
        percent = 100.0 * (CLOSE - 1.0),
    )
}

fn truth(record: &OnRecord) -> String {
    format!(
        "{} of {} variants ({:.2} %) are within {:.0} % of the best, which takes {:.2} us{}.",
        record.close,
        record.variants,
        100.0 * record.close as f64 / record.variants as f64,
        100.0 * (CLOSE - 1.0),
        record.best_us,
        if record.best_measured_again { "; the fastest were measured again" } else { "; nothing was measured again" },
    ) + &words::lessons(&record.learnt_from)
        .map(|lessons| format!(" Insight and full had learnt from {lessons}."))
        .unwrap_or_default()
}

fn strategies(ablation: &Ablation, record: &OnRecord) -> Vec<String> {
    let trials = ablation.plan.trials;
    let line = |(kind, arrivals): &(Kind, Vec<Option<u32>>)| {
        let (median, never) = OnRecord::median(arrivals, trials);
        let median = if never { format!("more than {median}") } else { median.to_string() };
        let share = 100.0 * OnRecord::arrived(arrivals, trials);
        format!("{:<10} {share:.1} % of seeds within {trials} trials; median {median} trials", kind.name())
    };
    record.arrivals.iter().map(line).collect()
}

fn ratio(record: &OnRecord) -> Option<String> {
    let ratio = record.full_to_random?;
    let at_most = if ratio.at_most { "at most " } else { "" };
    Some(format!("median trials, full : random: {at_most}{}", words::interval(&ratio.ratio)))
}

fn keys(record: &OnRecord) -> String {
    let key = |kind: &Kind| format!("<span class='key {0}'>{0}</span> ", kind.name());
    record.arrivals.iter().map(|(kind, _)| key(kind)).collect()
}

fn plot(record: &OnRecord, trials: u32) -> String {
    let mut plot = Plot::new([0.0, f64::from(trials)], [0.0, 1.0], false, 320.0);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        plot.tick_y(share, &format!("{:.0} %", 100.0 * share));
    }
    for trial in (0..=trials).step_by((trials as usize / 9).max(1)) {
        plot.tick_x(f64::from(trial), &trial.to_string());
    }
    for (kind, arrivals) in &record.arrivals {
        let points: Vec<(f64, f64)> =
            (0..=trials).map(|trial| (f64::from(trial), OnRecord::arrived(arrivals, trial))).collect();
        plot.line(&points, kind.name());
    }
    plot.finish("share of seeds that arrived, over trials")
}
