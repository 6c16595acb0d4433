//! How alike variants are to a model of their times: a constant between families, and within one a product over genes, each
//! of which reaches so many steps of its domain. The further, the less a gene matters; the reaches are learnt.

use std::sync::Arc;

use spec::{Domain, Effect, Family, Gene, Variant};

use super::{factor::Factor, genome::position};

/// Covariance of two families, relative to that of one.
const BETWEEN_FAMILIES: f64 = 0.25;
/// Steps of a gene's domain over which its values are alike, as assumed before anything is known.
const REACH: f64 = 2.0;
/// The same for a gene that is none of the code's: the same kernel launched otherwise.
const LAUNCH_REACH: f64 = 7.0;
/// What it may be learnt to be: from a value that says nothing of the next, to a gene that hardly matters.
const REACHES: [f64; 4] = [0.7, REACH, 7.0, 30.0];
/// How many times all genes are gone through.
const PASSES: usize = 2;
/// How much likelier, in logarithms, observations must be by another reach before it is believed.
const CONVINCING: f64 = 0.05;
/// Observations that reaches are learnt from at most: the fastest, since they are to be told apart.
const MOST: usize = 128;
/// Observations of a family without which nothing is learnt of its genes.
const LEAST: usize = 4;
/// Share of the variance that no gene explains.
const UNEXPLAINED: f64 = 1e-3;

/// A variant by the positions of its values in their domains.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) family: Family,
    positions: Vec<usize>,
}

impl Point {
    pub(super) fn of(variant: &Variant) -> Self {
        let family = variant.family();
        Self { family, positions: family.domains().iter().map(|domain| position(domain, variant)).collect() }
    }
}

/// By family and gene.
type Reaches = [Vec<f64>; Family::ALL.len()];

/// What reaches were learnt.
#[derive(Clone, Debug)]
pub(super) struct Likeness {
    /// By family and gene, how alike values are that are so many steps apart. Models of hundreds of variants ask for it
    /// millions of times, and are copied.
    near: Arc<[Vec<Vec<f64>>; Family::ALL.len()]>,
}

impl Likeness {
    /// The reaches by which residuals are likeliest, given that their variance is worth `weight` observations of `variance`
    /// before any is made; gene by gene, so that what is found is not always the best there is.
    pub(super) fn learn(points: &[Point], residuals: &[f64], weight: f64, variance: f64) -> Self {
        let mut fit = Fit::new(points, residuals, weight, variance);
        let mut likeliest = fit.likelihood();
        for _ in 0..PASSES {
            let before = fit.reaches.clone();
            for (family, gene) in fit.varied() {
                let mut best = fit.reaches[family as usize][gene];
                for reach in REACHES {
                    fit.set(family, gene, reach);
                    let likely = fit.likelihood();
                    if likely > likeliest + CONVINCING {
                        (likeliest, best) = (likely, reach);
                    }
                }
                fit.set(family, gene, best);
            }
            if before == fit.reaches {
                break;
            }
        }
        Self::of_reaches(&fit.reaches)
    }

    fn of_reaches(reaches: &Reaches) -> Self {
        let tables = |family: Family| {
            let genes = family.domains().iter().zip(&reaches[family as usize]);
            genes.map(|(domain, reach)| table(domain, *reach)).collect()
        };
        Self { near: Arc::new(Family::ALL.map(tables)) }
    }

    /// Covariance of two points, 1 for the same.
    pub(super) fn of(&self, a: &Point, b: &Point) -> f64 {
        within(a, b, || {
            let near = &self.near[a.family as usize];
            near.iter().zip(steps(a, b)).map(|(near, steps)| near[steps]).product()
        })
    }

    /// Covariance of what a gene's value is worth, all other genes averaged over their domains, with a point of the same
    /// family; with itself, if there is no point.
    pub(super) fn of_effect(&self, family: Family, gene: usize, value: usize, point: Option<&Point>) -> f64 {
        let near = &self.near[family as usize];
        let average = |table: &[f64], other: usize| {
            (0..table.len()).map(|v| table[v.abs_diff(other)]).sum::<f64>() / table.len() as f64
        };
        let product: f64 = (near.iter().enumerate())
            .map(|(i, table)| {
                let centred = |other: usize| table[value.abs_diff(other)] - average(table, other);
                let over = |of: &dyn Fn(usize) -> f64| (0..table.len()).map(of).sum::<f64>() / table.len() as f64;
                match point {
                    Some(point) if i == gene => centred(point.positions[i]),
                    Some(point) => average(table, point.positions[i]),
                    None if i == gene => centred(value) - over(&centred),
                    None => over(&|other| average(table, other)),
                }
            })
            .product();
        (1.0 - BETWEEN_FAMILIES) * product
    }
}

/// How far a gene reaches as far as is known before anything is measured.
fn assumed(gene: Gene) -> f64 {
    match gene.effect() {
        Effect::Code => REACH,
        Effect::Launch => LAUNCH_REACH,
    }
}

/// Observations, and the reaches that are tried on them.
struct Fit<'a> {
    points: Vec<&'a Point>,
    residuals: Vec<f64>,
    weight: f64,
    variance: f64,
    reaches: Reaches,
    /// Lower triangle of the points' distances in reaches: another reach of one gene changes one term of each.
    distances: Vec<Vec<f64>>,
}

impl<'a> Fit<'a> {
    fn new(points: &'a [Point], residuals: &[f64], weight: f64, variance: f64) -> Self {
        let mut fastest: Vec<usize> = (0..points.len()).collect();
        fastest.sort_by(|&a, &b| residuals[a].total_cmp(&residuals[b]).then(a.cmp(&b)));
        fastest.truncate(MOST);
        let points: Vec<&Point> = fastest.iter().map(|&i| &points[i]).collect();
        let residuals = fastest.iter().map(|&i| residuals[i]).collect();
        let reaches: Reaches = Family::ALL.map(|of| of.domains().iter().map(|domain| assumed(domain.gene)).collect());
        let distance = |a: &Point, b: &Point| {
            steps(a, b).zip(&reaches[a.family as usize]).map(|(steps, reach)| steps as f64 / reach).sum()
        };
        let row = |i: usize| points[..i].iter().map(|other| distance(points[i], other)).collect();
        let distances = (0..points.len()).map(row).collect();
        Self { points, residuals, weight, variance, reaches, distances }
    }

    /// Genes of which something can be learnt.
    fn varied(&self) -> Vec<(Family, usize)> {
        let of = |family: Family| {
            let own: Vec<&&Point> = self.points.iter().filter(|point| point.family == family).collect();
            let varies = move |gene: &usize| {
                own.len() >= LEAST && own.iter().any(|point| point.positions[*gene] != own[0].positions[*gene])
            };
            (0..family.domains().len()).filter(varies).map(move |gene| (family, gene))
        };
        Family::ALL.into_iter().flat_map(of).collect()
    }

    fn set(&mut self, family: Family, gene: usize, reach: f64) {
        let before = std::mem::replace(&mut self.reaches[family as usize][gene], reach);
        let change = 1.0 / reach - 1.0 / before;
        for (point, row) in self.points.iter().zip(&mut self.distances).filter(|(point, _)| point.family == family) {
            for (other, distance) in self.points.iter().zip(row).filter(|(other, _)| other.family == family) {
                *distance += point.positions[gene].abs_diff(other.positions[gene]) as f64 * change;
            }
        }
    }

    /// Logarithm of the residuals' likelihood, but for a constant; over all variances.
    fn likelihood(&self) -> f64 {
        let mut factor = Factor::default();
        for (point, row) in self.points.iter().zip(&self.distances) {
            let others = self.points.iter().zip(row);
            let covariances = others.map(|(other, distance)| within(point, other, || (-distance).exp()));
            factor.extend(&covariances.collect::<Vec<_>>(), 1.0 + UNEXPLAINED);
        }
        let squares: f64 = factor.forward(&self.residuals).iter().map(|z| z * z).sum();
        let degrees = self.residuals.len() as f64 + self.weight;
        -0.5 * degrees * (squares + self.weight * self.variance).ln() - factor.log_diagonal()
    }
}

/// How alike values of a domain are by steps between them.
fn table(domain: &Domain, reach: f64) -> Vec<f64> {
    (0..domain.values.len()).map(|steps| (-(steps as f64) / reach).exp()).collect()
}

fn steps<'a>(a: &'a Point, b: &'a Point) -> impl Iterator<Item = usize> + 'a {
    a.positions.iter().zip(&b.positions).map(|(a, b)| a.abs_diff(*b))
}

/// The covariance of two points that, if they are of one family, are so much alike.
fn within(a: &Point, b: &Point, alike: impl FnOnce() -> f64) -> f64 {
    if a.family == b.family { BETWEEN_FAMILIES + (1.0 - BETWEEN_FAMILIES) * alike() } else { BETWEEN_FAMILIES }
}

#[cfg(test)]
mod tests {
    use spec::Gene;

    use super::*;
    use crate::record::fixture;

    /// Mma variants, and a log time that two genes decide together; the others say nothing.
    fn observed() -> (Vec<Point>, Vec<f64>) {
        let mma = fixture::wide().members().iter().filter(|v| v.family() == Family::Mma).copied();
        let variants: Vec<Variant> = mma.step_by(29).collect();
        let gene = |variant: &Variant, gene| f64::from(variant.get(gene).unwrap_or(0));
        let y = |variant: &Variant| (gene(variant, Gene::Stages) - 2.0) * (gene(variant, Gene::Warps).log2() - 1.5);
        let residuals = variants.iter().map(|variant| 0.2 * y(variant)).collect();
        (variants.iter().map(Point::of).collect(), residuals)
    }

    #[test]
    fn genes_that_do_not_matter_reach_far() {
        let (points, residuals) = observed();
        assert!(points.len() >= 40, "{}", points.len());
        let learnt = Likeness::learn(&points, &residuals, 3.0, 0.16);
        let near = |gene: Gene| {
            let index = Family::Mma.domains().iter().position(|domain| domain.gene == gene).unwrap();
            learnt.near[Family::Mma as usize][index][1]
        };
        let default = (-1.0 / REACH).exp();
        assert!(near(Gene::Stages) <= default && near(Gene::Warps) <= default);
        let varied = |gene: &Gene| {
            points.iter().any(|point| {
                let index = Family::Mma.domains().iter().position(|domain| domain.gene == *gene).unwrap();
                point.positions[index] != points[0].positions[index]
            })
        };
        for gene in
            [Gene::QInRegisters, Gene::LazyRescale, Gene::CacheHint, Gene::TileQ].iter().filter(|gene| varied(gene))
        {
            assert!(near(*gene) > 0.9, "{}: {}", gene.name(), near(*gene));
        }
    }

    #[test]
    fn a_kernel_launched_otherwise_is_held_for_much_the_same() {
        let nothing = Likeness::learn(&[], &[], 3.0, 0.16);
        for family in Family::ALL {
            let next = |effect: Effect| {
                let genes = family.domains().iter().zip(&nothing.near[family as usize]);
                let of = genes.filter(|(domain, near)| domain.gene.effect() == effect && near.len() > 1);
                of.map(|(_, near)| near[1]).collect::<Vec<_>>()
            };
            let (code, launch) = (next(Effect::Code), next(Effect::Launch));
            assert!(launch.iter().all(|launch| code.iter().all(|code| launch > code)), "{family}");
            assert_eq!(launch.is_empty(), family == Family::Decode, "{family}");
        }
    }

    #[test]
    fn an_effect_is_the_average_of_what_it_is_an_effect_on() {
        let (points, residuals) = observed();
        let learnt = Likeness::learn(&points, &residuals, 3.0, 0.16);
        // Over all points of a small family the average can be taken one by one.
        let domains = Family::Tiled.domains();
        let mut all = vec![vec![]];
        for domain in domains {
            all = all
                .iter()
                .flat_map(|p: &Vec<usize>| (0..domain.values.len()).map(move |v| [p.as_slice(), &[v]].concat()))
                .collect();
        }
        let point = |positions: Vec<usize>| Point { family: Family::Tiled, positions };
        let known = point(vec![1; domains.len()]);
        let (gene, value) = (2, 3);
        let with = |of: &dyn Fn(&[usize]) -> bool| {
            let chosen: Vec<f64> = all.iter().filter(|p| of(p)).map(|p| learnt.of(&point(p.clone()), &known)).collect();
            chosen.iter().sum::<f64>() / chosen.len() as f64
        };
        let expected = with(&|p| p[gene] == value) - with(&|_| true);
        let covariance = learnt.of_effect(Family::Tiled, gene, value, Some(&known));
        assert!((covariance - expected).abs() < 1e-12, "{covariance} {expected}");
        assert!(learnt.of_effect(Family::Tiled, gene, value, None) > covariance.abs());
    }
}
