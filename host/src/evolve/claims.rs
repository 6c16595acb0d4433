//! What may be claimed of a winner: few comparisons, on samples that selected nothing.

use serde::{Deserialize, Serialize};

use super::settings::Peer;
use crate::{
    device::Samples,
    measure::{
        noise::NoiseFloor,
        statistics::{self, Interval, NoInterval},
    },
};

/// Probability that any claim of a run is false.
const ERROR: f64 = 0.05;

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The winner is faster: the interval lies below 1 and the estimate below what an A/A test could show.
    Faster,
    /// The winner is slower: the interval lies above 1.
    Slower,
    /// Neither can be told from these samples.
    NoClaim,
    /// A record is context and backs no claim.
    Context,
}

/// One comparison of the winner with something else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// What the winner is compared with.
    pub against: String,
    /// The winner's hot time over the other's; no interval around the ratio to a record.
    pub ratio: Interval,
    /// The same with a flushed L2, where it was measured.
    pub cold: Option<Interval>,
    /// Level of the intervals: corrected, so that all claims of a run hold together at 0.95.
    pub level: f64,
    /// What follows.
    pub finding: Finding,
}

/// Compares the winner with the first incumbent, interleaved, and with each peer, apart. `incumbent` is `None` if
/// the winner is the first incumbent.
pub fn claims(
    winner: &Samples,
    incumbent: Option<&Samples>,
    peers: &[Peer],
    noise: &NoiseFloor,
) -> Result<Vec<Claim>, NoInterval> {
    let measured = peers.iter().filter(|peer| peer.recorded.is_none()).count();
    let count = measured + usize::from(incumbent.is_some());
    let level = 1.0 - ERROR / count.max(1) as f64;
    let mut claims = Vec::new();
    if let Some(incumbent) = incumbent {
        let ratio = statistics::paired(&winner.hot_us, &incumbent.hot_us, level)?;
        let cold = statistics::paired(&winner.cold_us, &incumbent.cold_us, level).ok();
        claims.push(Claim { against: "first incumbent".into(), ratio, cold, level, finding: find(&ratio, noise) });
    }
    for Peer { name, hot_us, cold_us, recorded } in peers {
        claims.push(match recorded {
            None => {
                let ratio = statistics::unpaired(&winner.hot_us, hot_us, level)?;
                let cold = statistics::unpaired(&winner.cold_us, cold_us, level).ok();
                Claim { against: name.clone(), ratio, cold, level, finding: find(&ratio, noise) }
            }
            Some(provenance) => {
                let estimate = statistics::median(&winner.hot_us) / statistics::median(hot_us);
                let ratio = Interval { low: estimate, estimate, high: estimate };
                let against = format!("{name}, recorded {provenance}");
                Claim { against, ratio, cold: None, level, finding: Finding::Context }
            }
        });
    }
    Ok(claims)
}

fn find(ratio: &Interval, noise: &NoiseFloor) -> Finding {
    if ratio.high < 1.0 && ratio.estimate < noise.claimable() {
        Finding::Faster
    } else if ratio.low > 1.0 {
        Finding::Slower
    } else {
        Finding::NoClaim
    }
}
