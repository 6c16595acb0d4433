//! What our kernels are held against: PyTorch's SDPA with each backend pinned, and FlashAttention-3 where installed.
//!
//! It runs as a Python program of its own, on the same GPU, by the same method. Turns cannot be taken across processes, so it
//! should be measured before and after ours.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use spec::{Problem, TensorStrides};

use crate::device::TimingPlan;

const SCRIPT: &str = include_str!("baseline.py");

/// An implementation to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// PyTorch SDPA pinned to FlashAttention-2.
    Flash,
    /// PyTorch SDPA pinned to cuDNN.
    Cudnn,
    /// PyTorch SDPA pinned to the memory-efficient kernels.
    Efficient,
    /// PyTorch SDPA pinned to plain matrix products.
    Math,
    /// FlashAttention-3, from the package `fa3-fwd`.
    Fa3,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Flash, Self::Cudnn, Self::Efficient, Self::Math, Self::Fa3];

    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flash => "SDPA flash",
            Self::Cudnn => "SDPA cuDNN",
            Self::Efficient => "SDPA efficient",
            Self::Math => "SDPA math",
            Self::Fa3 => "FlashAttention-3",
        }
    }
}

/// Times of one implementation, as [`crate::device::Samples`] are taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaselineSamples {
    /// By graph replay over warm caches, microseconds per call.
    pub hot_us: Vec<f64>,
    /// With L2 flushed before each call; empty unless asked for.
    pub cold_us: Vec<f64>,
    /// Largest absolute error against fp64 on a few rows.
    pub max_error: f64,
}

/// What one implementation did: its times, or why it refused the problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaselineOutcome {
    /// It ran.
    Measured(BaselineSamples),
    /// It did not, for this reason.
    Refused(String),
}

/// All implementations on one problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The GPU's name, as PyTorch gives it.
    pub gpu: String,
    /// PyTorch's version.
    pub torch: String,
    /// cuDNN's version; `None` where PyTorch has none.
    pub cudnn: Option<u32>,
    /// One outcome per implementation, in the order they finished.
    pub outcomes: Vec<(Backend, BaselineOutcome)>,
}

/// Why there is no baseline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// There is no Python, or no PyTorch, or it has no GPU.
    #[error("no baseline: {0}")]
    Unavailable(String),
    /// The program failed half-way.
    #[error("the baseline program failed ({status}): {message}")]
    Failed {
        /// Its exit status.
        status: String,
        /// The last line it complained with.
        message: String,
    },
    /// It did not end in time.
    #[error("the baseline program was still running after {0} s")]
    Timeout(u64),
    /// It wrote something that it should not.
    #[error("the baseline program wrote {line:?}: {reason}")]
    Malformed {
        /// What it wrote.
        line: String,
        /// Why that is wrong.
        reason: String,
    },
}

/// What the program is asked.
#[derive(Serialize)]
struct Request<'a> {
    batch: u32,
    heads_q: u32,
    heads_kv: u32,
    seqlen_q: u32,
    seqlen_kv: u32,
    head_dim_qk: u32,
    head_dim_v: u32,
    dtype: &'a str,
    mask: &'a str,
    strides: TensorStrides,
    scale: f32,
    backends: &'a [Backend],
    rounds: u32,
    cold: bool,
    seed: u64,
}

impl<'a> Request<'a> {
    fn new(problem: &Problem, backends: &'a [Backend], plan: &TimingPlan) -> Self {
        Self {
            batch: problem.batch,
            heads_q: problem.heads_q,
            heads_kv: problem.heads_kv,
            seqlen_q: problem.seqlen_q,
            seqlen_kv: problem.seqlen_kv,
            head_dim_qk: problem.head_dim_qk,
            head_dim_v: problem.head_dim_v,
            dtype: problem.dtype.name(),
            mask: problem.mask.name(),
            strides: problem.strides,
            scale: problem.softmax_scale(),
            backends,
            rounds: plan.rounds,
            cold: plan.cold,
            seed: plan.seed,
        }
    }
}

/// A line it answers with.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Unavailable {
        unavailable: String,
    },
    Environment {
        gpu: String,
        torch: String,
        cudnn: Option<u32>,
    },
    Refused {
        backend: Backend,
        refused: String,
    },
    Measured {
        backend: Backend,
        #[serde(flatten)]
        samples: BaselineSamples,
    },
}

/// Measures `backends` on the GPU with this UUID with the Python interpreter `python`, for at most `limit`.
pub fn measure(
    python: &OsStr,
    gpu_uuid: &str,
    problem: &Problem,
    backends: &[Backend],
    plan: &TimingPlan,
    limit: Duration,
) -> Result<Baseline, BaselineError> {
    let request = serde_json::to_string(&Request::new(problem, backends, plan))
        .map_err(|error| BaselineError::Unavailable(error.to_string()))?;
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT, &request]).env("CUDA_VISIBLE_DEVICES", gpu_uuid);
    read(&output_of(command, limit)?)
}

/// The lines the program writes. It is killed if it takes too long.
fn output_of(mut program: Command, limit: Duration) -> Result<Vec<String>, BaselineError> {
    let mut child =
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| {
            BaselineError::Unavailable(format!("{} does not start: {error}", program.get_program().display()))
        })?;
    let (sender, output) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
    }
    // Read beside the output, or a talkative child would block on a full pipe.
    let complaints = child.stderr.take().map(|stderr| {
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).filter(|l| !l.trim().is_empty()).last()
        })
    });
    let deadline = Instant::now() + limit;
    let mut lines = Vec::new();
    loop {
        match output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // Already gone is as good as killed.
                _ = child.kill();
                _ = child.wait();
                return Err(BaselineError::Timeout(limit.as_secs()));
            }
        }
    }
    let status = child.wait().map_err(|error| BaselineError::Unavailable(error.to_string()))?;
    if status.success() {
        return Ok(lines);
    }
    let message = complaints.and_then(|thread| thread.join().ok().flatten());
    Err(BaselineError::Failed {
        status: status.to_string(),
        message: message.unwrap_or_else(|| "it does not say why".to_owned()),
    })
}

fn read(lines: &[String]) -> Result<Baseline, BaselineError> {
    let malformed =
        |line: &str, reason: &str| BaselineError::Malformed { line: line.to_owned(), reason: reason.to_owned() };
    let (mut environment, mut outcomes) = (None, Vec::new());
    for text in lines {
        let line = serde_json::from_str(text)
            .map_err(|_| malformed(text, "it should be an environment, times, or a refusal in JSON"))?;
        match line {
            Line::Unavailable { unavailable } => return Err(BaselineError::Unavailable(unavailable)),
            Line::Environment { gpu, torch, cudnn } => environment = Some((gpu, torch, cudnn)),
            Line::Refused { backend, refused } => outcomes.push((backend, BaselineOutcome::Refused(refused))),
            Line::Measured { backend, samples } => {
                let times = samples.hot_us.iter().chain(&samples.cold_us);
                if samples.hot_us.is_empty() || times.clone().any(|us| !us.is_finite() || *us <= 0.0) {
                    return Err(malformed(text, "times must be there and positive"));
                }
                outcomes.push((backend, BaselineOutcome::Measured(samples)));
            }
        }
    }
    let Some((gpu, torch, cudnn)) = environment else {
        return Err(malformed("", "it ended without saying what it ran on"));
    };
    Ok(Baseline { gpu, torch, cudnn, outcomes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Pace;

    const ENVIRONMENT: &str = r#"{"gpu": "NVIDIA H100", "torch": "2.11.0", "cudnn": 91900}"#;
    const PLAN: TimingPlan = TimingPlan { rounds: 2, cold: false, seed: 1, pace: Pace::Sustained };

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn outcomes_are_read() {
        let measured = r#"{"backend": "cudnn", "hot_us": [9.3, 9.2], "cold_us": [], "max_error": 0.0002}"#;
        let refused = r#"{"backend": "fa3", "refused": "ModuleNotFoundError: No module named 'fa3_fwd_interface'"}"#;
        let baseline = read(&lines(&[ENVIRONMENT, measured, refused])).unwrap();
        assert_eq!((baseline.torch.as_str(), baseline.cudnn), ("2.11.0", Some(91900)));
        let samples = BaselineSamples { hot_us: vec![9.3, 9.2], cold_us: vec![], max_error: 0.0002 };
        assert_eq!(baseline.outcomes[0], (Backend::Cudnn, BaselineOutcome::Measured(samples)));
        assert!(
            matches!(&baseline.outcomes[1], (Backend::Fa3, BaselineOutcome::Refused(why)) if why.contains("No module"))
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "Segmentation fault",
            r#"{"backend": "warp", "hot_us": [1.0], "cold_us": [], "max_error": 0}"#,
            r#"{"backend": "flash", "hot_us": [], "cold_us": [], "max_error": 0}"#,
            r#"{"backend": "flash", "hot_us": [0.0], "cold_us": [], "max_error": 0}"#,
            r#"{"backend": "flash", "hot_us": [1.0], "cold_us": [-1.0], "max_error": 0}"#,
        ] {
            assert!(matches!(read(&lines(&[ENVIRONMENT, bad])), Err(BaselineError::Malformed { .. })), "{bad}");
        }
        assert!(matches!(read(&[]), Err(BaselineError::Malformed { .. })));
        let unavailable = read(&lines(&[r#"{"unavailable": "no torch"}"#]));
        assert_eq!(unavailable, Err(BaselineError::Unavailable("no torch".into())));
    }

    fn shell(body: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", body]);
        command
    }

    #[test]
    fn a_failing_program_is_reported_with_its_last_words() {
        let minute = Duration::from_secs(60);
        let failed = output_of(shell("echo first >&2; echo 'RuntimeError: broken' >&2; exit 3"), minute).unwrap_err();
        assert!(failed.to_string().ends_with("3): RuntimeError: broken"), "{failed}");
        let hangs = output_of(shell("exec sleep 60"), Duration::from_millis(50));
        assert_eq!(hangs, Err(BaselineError::Timeout(0)));
        let missing = output_of(Command::new("/nonexistent/python"), minute);
        assert!(matches!(missing, Err(BaselineError::Unavailable(_))));
    }

    #[test]
    fn the_program_is_asked_by_the_names_it_reads() {
        let request = serde_json::to_value(Request::new(&Problem::SEED, &Backend::ALL, &PLAN)).unwrap();
        for name in request.as_object().unwrap().keys() {
            assert!(SCRIPT.contains(&format!("\"{name}\"")), "{name} is not read");
        }
        assert_eq!(request["backends"], serde_json::json!(["flash", "cudnn", "efficient", "math", "fa3"]));
        assert_eq!(request["strides"]["k"]["seq"], 512);
    }

    #[test]
    fn the_real_program_says_why_it_cannot_run() {
        // On a machine with PyTorch and a GPU it measures; elsewhere the reason is one line.
        let result =
            measure(OsStr::new("python3"), "0", &Problem::SEED, &[Backend::Math], &PLAN, Duration::from_secs(300));
        match result {
            Ok(baseline) => assert_eq!(baseline.outcomes.len(), 1),
            Err(BaselineError::Unavailable(why)) => assert!(!why.is_empty() && !why.contains('\n'), "{why}"),
            Err(other) => panic!("{other}"),
        }
    }
}
