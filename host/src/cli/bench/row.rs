//! A line of results, in the form that peers' timings are kept in too.

use serde::{Deserialize, Serialize};
use spec::{Dtype, Mask, Problem};

/// One shape. What did not run has an error in the place of its times.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(flatten)]
    pub(super) shape: Shape,
    pub(super) backend: String,
    #[serde(flatten)]
    pub(super) result: Outcome,
}

/// What tells shapes apart.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Shape {
    b: u32,
    hq: u32,
    hk: u32,
    sq: u32,
    sk: u32,
    d: u32,
    causal: bool,
    pub(super) dtype: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    Times {
        hot_us: f64,
        // A comparison needs the hot time alone: of some peers nothing else was kept.
        #[serde(skip_serializing_if = "Option::is_none")]
        cold_us: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tflops: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        max_err: Option<f64>,
    },
    Error {
        error: String,
    },
}

impl Outcome {
    /// Hot time in microseconds, if it ran.
    pub(super) fn hot_us(&self) -> Option<f64> {
        match self {
            Self::Times { hot_us, .. } => Some(*hot_us),
            Self::Error { .. } => None,
        }
    }
}

impl Shape {
    pub(super) fn of(problem: &Problem) -> Self {
        let Problem { batch, heads_q, heads_kv, seqlen_q, seqlen_kv, head_dim_qk, dtype, mask, .. } = *problem;
        let dtype = match dtype {
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
            Dtype::F32 => "float32",
            Dtype::E4m3 => "float8_e4m3fn",
        };
        Self {
            b: batch,
            hq: heads_q,
            hk: heads_kv,
            sq: seqlen_q,
            sk: seqlen_kv,
            d: head_dim_qk,
            causal: mask != Mask::Full,
            dtype: dtype.to_owned(),
        }
    }
}

/// What was measured: medians in microseconds, and the largest error against fp64 on the rows that were looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) hot_us: f64,
    pub(super) cold_us: f64,
    pub(super) max_err: f64,
}

impl Row {
    /// What a variant did.
    pub(super) fn measured(problem: &Problem, variant: String, measured: Measured) -> Self {
        let Measured { hot_us, cold_us, max_err } = measured;
        let result = Outcome::Times {
            hot_us: rounded(hot_us, 1e3),
            cold_us: Some(rounded(cold_us, 1e2)),
            tflops: Some(rounded(nominal_flops(problem) / hot_us / 1e6, 1e1)),
            max_err: Some(max_err),
        };
        Self { shape: Shape::of(problem), backend: variant, result }
    }

    /// Why nothing was measured.
    pub(super) fn failed(problem: &Problem, error: String) -> Self {
        Self { shape: Shape::of(problem), backend: "none".to_owned(), result: Outcome::Error { error } }
    }
}

/// As everybody counts them: half of all scores under a causal mask, however many its diagonal cuts.
fn nominal_flops(problem: &Problem) -> f64 {
    let Problem { batch, heads_q, seqlen_q, seqlen_kv, head_dim_qk, head_dim_v, mask, .. } = *problem;
    let scores = [batch, heads_q, seqlen_q, seqlen_kv].map(f64::from).iter().product::<f64>();
    let share = if mask == Mask::Full { 1.0 } else { 0.5 };
    2.0 * scores * f64::from(head_dim_qk + head_dim_v) * share
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spec::Align;

    use super::*;

    #[test]
    fn keys_are_those_of_the_peers() {
        let problem = Problem::SEED.with_mask(Mask::Causal(Align::BottomRight));
        let measured = Measured { hot_us: 4.000_04, cold_us: 9.125, max_err: 0.0005 };
        let row = serde_json::to_value(Row::measured(&problem, "v".into(), measured)).unwrap();
        // 4 * 8 * 512 * 512 * 64 / 2 operations in 4 us.
        let expected = json!({
            "b": 1, "hq": 8, "hk": 8, "sq": 512, "sk": 512, "d": 64, "causal": true, "dtype": "float16", "backend": "v",
            "hot_us": 4.0, "cold_us": 9.13, "tflops": 67.1, "max_err": 0.0005,
        });
        assert_eq!(row, expected);
        let row = serde_json::to_value(Row::failed(&problem, "why".into())).unwrap();
        assert_eq!((&row["error"], row.get("hot_us")), (&json!("why"), None));
    }
}
