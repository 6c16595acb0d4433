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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StudentT};

    use super::*;

    /// Runs of 60 paired claim samples and 40 A/A samples with 1 % of heavy-tailed noise each; the winner takes `truth`
    /// times the incumbent's time. Returns how many claimed it faster, and how many intervals missed the truth.
    fn runs(count: usize, truth: f64, seed: u64) -> (usize, usize) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let noise = StudentT::new(4.0).unwrap();
        let mut draw = |us: f64, n: usize| -> Samples {
            let hot_us = (0..n).map(|_| us * f64::exp(0.01 * noise.sample(&mut rng) / 2f64.sqrt())).collect();
            Samples { hot_us, ..Samples::default() }
        };
        let (mut faster, mut missed) = (0, 0);
        for _ in 0..count {
            let floor = NoiseFloor::of(&draw(10.0, 40).hot_us, &draw(10.0, 40).hot_us).unwrap();
            let made = claims(&draw(10.0 * truth, 60), Some(&draw(10.0, 60)), &[], &floor).unwrap();
            faster += usize::from(made[0].finding == Finding::Faster);
            missed += usize::from(!made[0].ratio.contains(truth));
        }
        (faster, missed)
    }

    /// Nominal 5 % two-sided, so 2.5 % on the faster side; with 1,000 runs the binomial allows 5 % for 6.6 %.
    #[test]
    fn a_kernel_is_rarely_claimed_faster_than_itself() {
        let (faster, missed) = runs(1000, 1.0, 11);
        assert!(faster <= 38 && missed <= 66, "{faster} false claims, {missed} intervals missed 1");
    }

    #[test]
    fn three_percent_are_found_and_bounded() {
        let (faster, missed) = runs(1000, 0.97, 12);
        assert!(faster >= 950 && missed <= 66, "{faster} claims, {missed} intervals missed 0.97");
    }

    #[test]
    fn a_record_backs_no_claim_and_each_claim_has_its_share_of_the_error() {
        let samples =
            |us: f64| Samples { hot_us: (0..60).map(|i| us + 0.01 * f64::from(i % 7)).collect(), ..Samples::default() };
        let (winner, incumbent) = (samples(5.0), samples(10.0));
        let now = Peer { name: "now".into(), hot_us: samples(9.0).hot_us, cold_us: vec![], recorded: None };
        let then = Peer { name: "then".into(), recorded: Some("2000".into()), ..now.clone() };
        let floor = NoiseFloor::of(&incumbent.hot_us, &incumbent.hot_us).unwrap();
        let made = claims(&winner, Some(&incumbent), &[now, then], &floor).unwrap();
        let findings: Vec<Finding> = made.iter().map(|claim| claim.finding).collect();
        assert_eq!(findings, [Finding::Faster, Finding::Faster, Finding::Context]);
        assert!(made.iter().all(|claim| claim.level == 0.975));
    }
}
