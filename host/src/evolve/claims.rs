//! What may be claimed of a winner: few comparisons, on samples that selected nothing.

use serde::{Deserialize, Serialize};

use super::settings::Peer;
use crate::measure::{
    noise::NoiseFloor,
    sittings::Sittings,
    statistics::{self, Interval, NoInterval},
};

/// Probability that any claim of a run is false.
const ERROR: f64 = 0.05;
/// How reports name the first incumbent.
pub(super) const FIRST: &str = "first incumbent";

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

/// Compares the winner with the first incumbent, interleaved in each sitting, and with each peer, apart. `incumbent` is
/// `None` if the winner is the first incumbent.
///
/// A peer has no sittings of its own: they are taken to lie as far off as the worst sitting of the A/A test, by which
/// its interval is wider than its samples alone would have it.
pub fn claims(
    winner: &Sittings,
    incumbent: Option<&Sittings>,
    peers: &[Peer],
    noise: &NoiseFloor,
) -> Result<Vec<Claim>, NoInterval> {
    let measured = peers.iter().filter(|peer| peer.recorded.is_none()).count();
    let count = measured + usize::from(incumbent.is_some());
    let level = 1.0 - ERROR / count.max(1) as f64;
    let (hot_us, cold_us) = (winner.hot_us(), winner.cold_us());
    let mut claims = Vec::new();
    if let Some(incumbent) = incumbent {
        let ratio = statistics::paired(&winner.hot_medians(), &incumbent.hot_medians(), level)?;
        let cold = statistics::paired(&winner.cold_medians(), &incumbent.cold_medians(), level).ok();
        claims.push(Claim { against: FIRST.into(), ratio, cold, level, finding: find(&ratio, noise) });
    }
    for peer in peers {
        claims.push(match &peer.recorded {
            None => {
                let apart = |ours: &[f64], theirs: &[f64]| {
                    Ok(statistics::unpaired(ours, theirs, level)?.widened(noise.worst_sitting))
                };
                let ratio = apart(&hot_us, &peer.hot_us)?;
                let cold = apart(&cold_us, &peer.cold_us).ok();
                Claim { against: peer.name.clone(), ratio, cold, level, finding: find(&ratio, noise) }
            }
            Some(provenance) => {
                let estimate = statistics::median(&hot_us) / statistics::median(&peer.hot_us);
                let ratio = Interval { low: estimate, estimate, high: estimate };
                let against = format!("{}, recorded {provenance}", peer.name);
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
    use super::*;
    use crate::device::Samples;

    /// Ten sittings of this median, each a little off.
    fn sittings(us: f64) -> Sittings {
        let rounds = |off: f64| (0..8).map(|i| us + off + 0.01 * f64::from(i % 7)).collect();
        let of = |sitting| Samples { hot_us: rounds(0.01 * f64::from(sitting % 3)), ..Samples::default() };
        Sittings((0..10).map(of).collect())
    }

    #[test]
    fn a_record_backs_no_claim_and_each_claim_has_its_share_of_the_error() {
        let (winner, incumbent) = (sittings(5.0), sittings(10.0));
        let now = Peer { name: "now".into(), hot_us: sittings(9.0).hot_us(), cold_us: vec![], recorded: None };
        let then = Peer { name: "then".into(), recorded: Some("2000".into()), ..now.clone() };
        let floor = NoiseFloor::of(&incumbent, &incumbent).unwrap();
        let made = claims(&winner, Some(&incumbent), &[now, then], &floor).unwrap();
        let findings: Vec<Finding> = made.iter().map(|claim| claim.finding).collect();
        assert_eq!(findings, [Finding::Faster, Finding::Faster, Finding::Context]);
        assert!(made.iter().all(|claim| claim.level == 0.975));
    }

    #[test]
    fn a_peer_is_told_apart_only_beyond_what_a_sitting_may_be_off() {
        let peer = |us| Peer { name: "now".into(), hot_us: sittings(us).hot_us(), cold_us: vec![], recorded: None };
        let off = |by: f64| {
            let mut off = sittings(10.0);
            off.0[3].hot_us.iter_mut().for_each(|us| *us *= by);
            NoiseFloor::of(&off, &sittings(10.0)).unwrap()
        };
        let finding = |us, by| claims(&sittings(10.0), None, &[peer(us)], &off(by)).unwrap()[0].finding;
        assert_eq!((finding(10.2, 1.001), finding(10.2, 1.03)), (Finding::Faster, Finding::NoClaim));
        assert_eq!((finding(9.8, 1.001), finding(9.8, 1.03)), (Finding::Slower, Finding::NoClaim));
    }
}
