//! The judge: outputs against their reference.

use spec::Problem;

use super::{Outputs, Reference, Row, RowBudget, budget::errors};
use crate::cases::{Case, Distribution, Guarded, number};
use crate::device::{Correctness, Failure};

/// Whether the outputs of a case are right.
///
/// # Errors
///
/// [`Failure::Wrong`] with the worst element's place and numbers. What is found first is what is named: writes outside
/// the outputs, then places not written, then NaN, then values of O, then LSE.
pub fn judge(case: &Case, reference: &Reference, outputs: &Outputs) -> Result<Correctness, Failure> {
    let verdict = breaches(outputs)
        .and_then(|()| written(case, reference, outputs))
        .and_then(|()| values(case, reference, outputs));
    verdict.map_err(|reason| Failure::Wrong { case: case.name.clone(), reason })
}

/// Writes where nothing of the outputs lies.
fn breaches(outputs: &Outputs) -> Result<(), String> {
    let breach = |name: &str, breach: Option<(usize, i64)>, len: usize| match breach {
        None => Ok(()),
        Some((count, first)) if first < 0 => {
            Err(format!("wrote {count} elements outside {name}, the first {} elements before its start", -first))
        }
        Some((count, first)) => {
            let past = first - len as i64;
            Err(format!("wrote {count} elements outside {name}, the first {past} elements past its end"))
        }
    };
    let (o, lse) = (&outputs.o.storage, &outputs.lse);
    breach("O", o.breach(), o.inner().len())?;
    breach("the LSE", lse.breach(), lse.inner().len())?;
    if outputs.o.words() == o.inner().len() {
        return Ok(());
    }
    let stray = |(i, own): (usize, bool)| (!own && o.inner()[i] != o.poison()).then_some(i);
    let strays: Vec<_> = outputs.o.own().into_iter().enumerate().filter_map(stray).collect();
    match strays.first() {
        None => Ok(()),
        Some(first) => Err(format!("wrote {} elements between the rows of O, the first at {first}", strays.len())),
    }
}

/// Whether every element was written, and none is NaN that should not be.
fn written(case: &Case, reference: &Reference, outputs: &Outputs) -> Result<(), String> {
    let problem = &case.problem;
    let nan_is_right = |row: &Row, column: Option<usize>| match case.inputs.distribution {
        Distribution::NanQuery => row.row + 1 == problem.shapes()[0][1],
        // Where they are right is known of rows with a reference only.
        Distribution::BrokenValues => column.is_some_and(|column| {
            let found = reference.rows.binary_search_by_key(row, |expected| expected.row);
            found.map_or(true, |at| reference.rows[at].beyond[column].is_nan())
        }),
        _ => false,
    };
    let rows = if outputs.partial { reference.rows.iter().map(|row| row.row).collect() } else { Row::all(problem) };
    let (mut unwritten, mut nan) = (Places::default(), Places::default());
    let (mut unwritten_lse, mut nan_lse) = (Places::default(), Places::default());
    let poison = outputs.o.poison();
    for row in rows {
        for (column, bits) in outputs.o.bits(row.batch, row.row, row.head).enumerate() {
            if bits == poison {
                unwritten.add(row, Some(column));
            } else if number::decode(problem.dtype.output(), bits).is_nan() && !nan_is_right(&row, Some(column)) {
                nan.add(row, Some(column));
            }
        }
        let bits = lse_bits(problem, &outputs.lse, &row);
        if bits == outputs.lse.poison() {
            unwritten_lse.add(row, None);
        } else if f32::from_bits(bits).is_nan() && !nan_is_right(&row, None) {
            nan_lse.add(row, None);
        }
    }
    unwritten.report("elements of O were not written")?;
    unwritten_lse.report("elements of the LSE were not written")?;
    nan.report("elements of O are NaN")?;
    nan_lse.report("elements of the LSE are NaN")
}

/// Whether O and LSE are within their budgets.
fn values(case: &Case, reference: &Reference, outputs: &Outputs) -> Result<Correctness, String> {
    let (mut worst, mut worst_lse) = (Worst::default(), Worst::default());
    let mut max_abs_error = 0f64;
    let [mut got_squares, mut reference_squares, mut ulp_squares, mut weight_squares] = [0f64; 4];
    let mut elements = 0usize;
    for expected in &reference.rows {
        let row = expected.row;
        let budget = RowBudget::of(case, expected);
        let lse = f64::from(f32::from_bits(lse_bits(&case.problem, &outputs.lse, &row)));
        if expected.exact_lse.is_nan() {
            let finite = outputs.o.values(row.batch, row.row, row.head).filter(|x| !x.is_nan()).count();
            if finite > 0 || !lse.is_nan() {
                return Err(format!("{} should be NaN like its query", Place { row, column: None }));
            }
            continue;
        }
        worst_lse.add(row, None, lse, expected.exact_lse, budget.lse);
        for (column, (got, exact)) in outputs.o.values(row.batch, row.row, row.head).zip(&expected.exact).enumerate() {
            let beyond = expected.beyond[column];
            if beyond != 0.0 {
                if got != beyond && !(got.is_nan() && beyond.is_nan()) {
                    let place = Place { row, column: Some(column) };
                    return Err(format!("O at {place} is {got}, expected {beyond} like the values that the row sees"));
                }
                continue;
            }
            let error = worst.add(row, Some(column), f64::from(got), *exact, budget.o);
            max_abs_error = max_abs_error.max(error);
            got_squares += error * error;
        }
        let within = errors(expected).zip(&expected.beyond).filter(|(_, beyond)| **beyond == 0.0);
        reference_squares += within.map(|(error, _)| error * error).sum::<f64>();
        let columns = expected.beyond.iter().filter(|beyond| **beyond == 0.0).count();
        ulp_squares += columns as f64 * budget.slack[0].powi(2);
        weight_squares += columns as f64 * budget.slack[1].powi(2);
        elements += columns;
    }
    worst.report("O", "elements of O")?;
    worst_lse.report("LSE", "elements of the LSE")?;
    let rms = |squares: f64| (squares / elements.max(1) as f64).sqrt();
    let (got, allowed) = (rms(got_squares), 2.0 * rms(reference_squares) + rms(ulp_squares) + rms(weight_squares));
    if got > allowed {
        return Err(format!("the error of O is {got:.3e} (RMS), {allowed:.3e} is allowed"));
    }
    let share = if allowed == 0.0 { 0.0 } else { got / allowed };
    Ok(Correctness { cases: 1, max_abs_error, budget_used: worst.share.max(worst_lse.share).max(share) })
}

fn lse_bits(problem: &Problem, lse: &Guarded<u32>, row: &Row) -> u32 {
    lse.inner()[row.index(problem) as usize]
}

/// A place in an output, as reports name it.
#[derive(Clone, Copy, Debug)]
struct Place {
    row: Row,
    column: Option<usize>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row { batch, head, row } = self.row;
        write!(f, "batch {batch}, head {head}, row {row}")?;
        self.column.map_or(Ok(()), |column| write!(f, ", column {column}"))
    }
}

/// Places with one fault.
#[derive(Default)]
struct Places {
    count: u64,
    first: Option<Place>,
}

impl Places {
    fn add(&mut self, row: Row, column: Option<usize>) {
        self.count += 1;
        self.first.get_or_insert(Place { row, column });
    }

    fn report(&self, what: &str) -> Result<(), String> {
        match self.first {
            None => Ok(()),
            Some(first) => Err(format!("{} {what}, the first at {first}", self.count)),
        }
    }
}

/// The element that takes the largest share of its budget.
#[derive(Default)]
struct Worst {
    share: f64,
    beyond: u64,
    of: u64,
    element: Option<(Place, [f64; 4])>,
}

impl Worst {
    /// Takes up an element and returns its error.
    fn add(&mut self, row: Row, column: Option<usize>, got: f64, exact: f64, allowed: f64) -> f64 {
        // Infinities that agree have no difference.
        let error = if got == exact { 0.0 } else { (got - exact).abs() };
        let share = if error == 0.0 { 0.0 } else { error / allowed };
        self.of += 1;
        self.beyond += u64::from(share > 1.0);
        if share > self.share {
            self.share = share;
            self.element = Some((Place { row, column }, [got, exact, error, allowed]));
        }
        error
    }

    fn report(&self, name: &str, what: &str) -> Result<(), String> {
        let Some((place, [got, exact, error, allowed])) = self.element.filter(|_| self.share > 1.0) else {
            return Ok(());
        };
        Err(format!(
            "{name} at {place} is {got:.6e}, expected {exact:.6e}: off by {error:.3e}, {allowed:.3e} is allowed; \
             {} of {} {what} are beyond their budget",
            self.beyond, self.of
        ))
    }
}

#[cfg(test)]
mod tests {
    use spec::{Align, Dtype, Mask, Problem};

    use super::*;
    use crate::cases::{Extent, GUARD, odd_addresses, random, suite};
    use crate::oracle::metamorphic::Executor;
    use crate::oracle::{Answers, SamePrecision};

    fn case(dtype: Dtype, distribution: Distribution) -> Case {
        let problem =
            Problem::new(1, 2, 64, 40, dtype).with_seqlens(60, 90).with_mask(Mask::Causal(Align::BottomRight));
        Case::new("here", problem, distribution, 4)
    }

    /// The judge's reason to refuse what `change` makes of right outputs.
    fn reason(case: &Case, change: impl FnOnce(&mut Outputs)) -> String {
        let answer = Answers::default().to(case).unwrap();
        let mut outputs = SamePrecision.run(&case.problem, &answer.tensors).unwrap();
        judge(case, &answer.reference, &outputs).unwrap();
        change(&mut outputs);
        match judge(case, &answer.reference, &outputs) {
            Err(Failure::Wrong { case, reason }) if case == "here" => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_precision_reference_passes_the_suite() {
        let mut answers = Answers::default();
        let featured = random(&Problem::new(1, 1, 1, 40, Dtype::F16), 0).problem;
        for problem in
            [Problem::new(1, 2, 90, 40, Dtype::F16), Problem::new(1, 1, 65, 64, Dtype::Bf16).in_bhsd(), featured]
        {
            let odd = if problem.needs_features() { vec![] } else { odd_addresses(&problem, 2) };
            for case in suite(&problem, Extent::Small).into_iter().chain(odd) {
                let answer = answers.to(&case).unwrap();
                let outputs = SamePrecision.run(&case.problem, &answer.tensors).unwrap();
                let correctness = judge(&case, &answer.reference, &outputs).unwrap();
                assert!(correctness.budget_used <= 0.5, "{}: {correctness:?}", case.name);
            }
        }
    }

    #[test]
    fn the_same_precision_reference_passes_random_problems() {
        let mut answers = Answers::default();
        for dtype in Dtype::ALL {
            for case in (0..150).map(|seed| random(&Problem::new(1, 1, 1, 24, dtype), seed)) {
                let answer = answers.to(&case).unwrap();
                let outputs = SamePrecision.run(&case.problem, &answer.tensors).unwrap();
                judge(&case, &answer.reference, &outputs).unwrap();
            }
        }
    }

    #[test]
    fn one_wrong_element_is_named() {
        let wrong = reason(&case(Dtype::F16, Distribution::Normal), |outputs| {
            let mut row: Vec<_> = outputs.o.values(0, 13, 1).collect();
            row[7] += 0.01;
            outputs.o.set_row(0, 13, 1, &row);
        });
        assert!(wrong.starts_with("O at batch 0, head 1, row 13, column 7 is "), "{wrong}");
        assert!(wrong.ends_with("1 of 4800 elements of O are beyond their budget"), "{wrong}");
    }

    #[test]
    fn zeros_are_wrong_at_any_length() {
        for dtype in Dtype::ALL {
            for keys in [1, 512, 32_768] {
                let problem = Problem::new(1, 1, 2, 8, dtype).with_seqlens(2, keys);
                let case = Case { problem, ..case(dtype, Distribution::Normal) };
                let wrong = reason(&case, |outputs| outputs.o.storage.inner_mut().fill(0));
                assert!(wrong.starts_with("O at "), "{wrong}");
            }
        }
    }

    #[test]
    fn a_key_left_out_of_a_thousand_is_found() {
        for dtype in Dtype::ALL {
            // Weights of three bits are off by more than one of a thousand is worth.
            let keys = if dtype == Dtype::E4m3 { 100 } else { 1000 };
            let problem = Problem::new(1, 1, 9, 64, dtype).with_seqlens(9, keys);
            let case = Case { problem, ..case(dtype, Distribution::Normal) };
            let shorter = Problem { strides: problem.strides, ..problem.with_seqlens(9, keys - 1) };
            let tensors = Answers::default().to(&case).unwrap().tensors.clone();
            let without = SamePrecision.run(&shorter, &tensors).unwrap();
            let wrong = reason(&case, |outputs| *outputs = without);
            assert!(wrong.starts_with(if dtype == Dtype::F16 { "O at " } else { "" }), "{wrong}");
        }
    }

    #[test]
    fn what_was_not_written_is_named() {
        let poison = Outputs::unwritten(&case(Dtype::F16, Distribution::Normal).problem).unwrap();
        let wrong = reason(&case(Dtype::F16, Distribution::Normal), |outputs| {
            let half = outputs.o.storage.inner().len() / 2;
            outputs.o.storage.inner_mut()[half..].copy_from_slice(&poison.o.storage.inner()[half..]);
        });
        assert_eq!(wrong, "2400 elements of O were not written, the first at batch 0, head 0, row 30, column 0");
        let wrong = reason(&case(Dtype::F16, Distribution::Normal), |outputs| {
            outputs.lse.inner_mut()[61] = poison.lse.poison();
        });
        assert_eq!(wrong, "1 elements of the LSE were not written, the first at batch 0, head 1, row 1");
    }

    #[test]
    fn nan_is_wrong_but_where_the_query_is_nan() {
        let set = |bits: u16| move |outputs: &mut Outputs| outputs.o.storage.inner_mut()[80] = bits;
        for (dtype, nan) in [(Dtype::F16, 0x7e00), (Dtype::Bf16, 0x7fc0)] {
            let wrong = reason(&case(dtype, Distribution::NanQuery), set(nan));
            assert_eq!(wrong, "1 elements of O are NaN, the first at batch 0, head 0, row 1, column 0");
        }
        let wrong = reason(&case(Dtype::F16, Distribution::Normal), set(0x7c00));
        assert!(wrong.starts_with("O at batch 0, head 0, row 1, column 0 is inf"), "{wrong}");
        let wrong = reason(&case(Dtype::F16, Distribution::NanQuery), |outputs| {
            let last = outputs.o.offset(0, 59, 1);
            outputs.o.storage.inner_mut()[last] = 0;
        });
        assert_eq!(wrong, "batch 0, head 1, row 59 should be NaN like its query");
        let wrong = reason(&case(Dtype::F16, Distribution::Normal), |outputs| {
            outputs.lse.inner_mut()[3] = f32::NAN.to_bits();
        });
        assert_eq!(wrong, "1 elements of the LSE are NaN, the first at batch 0, head 0, row 3");
    }

    #[test]
    fn values_that_are_not_finite_reach_the_rows_that_see_them_and_no_others() {
        let case = case(Dtype::Bf16, Distribution::BrokenValues);
        let answer = Answers::default().to(&case).unwrap();
        let whole = SamePrecision.run(&case.problem, &answer.tensors).unwrap();
        // The first element that should be NaN, infinite, finite.
        let kinds: [fn(f32) -> bool; 3] = [f32::is_nan, f32::is_infinite, f32::is_finite];
        let elements = answer.reference.rows.iter().flat_map(|expected| {
            let Row { batch, head, row } = expected.row;
            let start = whole.o.offset(batch, row, head);
            expected.beyond.iter().enumerate().map(move |(column, beyond)| (start + column, *beyond))
        });
        let elements: Vec<_> = elements.collect();
        let set = |kind: usize, bits: u16| {
            let (at, _) = *elements.iter().find(|(_, beyond)| kinds[kind](*beyond)).unwrap();
            reason(&case, |outputs| outputs.o.storage.inner_mut()[at] = bits)
        };
        let [zero, inf, nan] = [0, 0x7f80, 0x7fc0];
        assert!(set(0, zero).contains(" is 0, expected NaN like the values that the row sees"));
        assert!(set(0, inf).contains(" is inf, expected NaN"));
        assert!(set(1, zero).contains(" is 0, expected "));
        assert!(set(1, nan).starts_with("1 elements of O are NaN"));
        assert!(set(2, inf).contains(" is inf, expected "));
        assert!(set(2, nan).starts_with("1 elements of O are NaN"));
    }

    #[test]
    fn writes_outside_are_named() {
        let case = case(Dtype::F16, Distribution::Normal);
        let wrong = reason(&case, |outputs| outputs.o.storage.whole_mut()[GUARD - 2..GUARD].fill(0));
        assert_eq!(wrong, "wrote 2 elements outside O, the first 2 elements before its start");
        let wrong = reason(&case, |outputs| {
            let end = outputs.lse.inner().len();
            outputs.lse.whole_mut()[GUARD + end + 5] = 0;
        });
        assert_eq!(wrong, "wrote 1 elements outside the LSE, the first 5 elements past its end");
        let mut strided = case;
        strided.problem.strides.o.seq += 8;
        let wrong = reason(&strided, |outputs| outputs.o.storage.inner_mut()[83] = 0);
        assert_eq!(wrong, "wrote 1 elements between the rows of O, the first at 83");
    }

    #[test]
    fn an_error_in_every_element_is_found_by_its_mean() {
        // Noise inside each element's budget, but not rounding.
        let case = case(Dtype::F16, Distribution::ConstantV);
        let wrong = reason(&case, |outputs| {
            for word in outputs.o.storage.inner_mut().iter_mut().filter(|word| **word == 0x3c00) {
                *word += 1;
            }
        });
        assert!(wrong.starts_with("the error of O is 9.7"), "{wrong}");
    }

    #[test]
    fn the_lse_has_a_budget_of_its_own() {
        let wrong = reason(&case(Dtype::Bf16, Distribution::Normal), |outputs| {
            let bits = &mut outputs.lse.inner_mut()[119];
            *bits = (f32::from_bits(*bits) + 1e-3).to_bits();
        });
        assert!(wrong.starts_with("LSE at batch 0, head 1, row 59 is "), "{wrong}");
    }

    #[test]
    fn rows_that_see_nothing_are_exact() {
        let problem =
            Problem::new(1, 1, 3, 8, Dtype::F16).with_seqlens(3, 1).with_mask(Mask::Causal(Align::BottomRight));
        let case = Case { problem, ..case(Dtype::F16, Distribution::Normal) };
        let wrong = reason(&case, |outputs| outputs.o.storage.inner_mut()[0] = 1);
        assert!(wrong.starts_with("O at batch 0, head 0, row 0, column 0 is 5.96"), "{wrong}");
        let wrong = reason(&case, |outputs| outputs.lse.inner_mut()[0] = f32::MIN.to_bits());
        assert!(wrong.starts_with("LSE at batch 0, head 0, row 0 is -3.40"), "{wrong}");
    }

    #[test]
    fn the_seed_shape_has_an_absolute_limit() {
        let seed = Case { problem: Problem::SEED, ..case(Dtype::F16, Distribution::LargeLogits) };
        let answer = Answers::default().to(&seed).unwrap();
        let loose = |case: &Case| {
            let budgets = answer.reference.rows.iter().map(|row| RowBudget::of(case, row).o);
            budgets.filter(|budget| *budget > crate::oracle::SEED_LIMIT).count()
        };
        assert!(loose(&seed) > 0);
        let normal = Case { inputs: crate::cases::Inputs::new(Distribution::Normal, 4), ..seed.clone() };
        assert_eq!(loose(&normal), 0);
    }

    #[test]
    fn a_partial_run_is_judged_by_its_rows_alone() {
        let case = case(Dtype::F16, Distribution::Normal);
        let answer = Answers::default().to(&case).unwrap();
        let mut outputs = Outputs::unwritten(&case.problem).unwrap();
        let whole = SamePrecision.run(&case.problem, &answer.tensors).unwrap();
        let rows: Vec<_> = answer.reference.rows[10..20].to_vec();
        for Row { batch, head, row } in rows.iter().map(|expected| expected.row) {
            let values: Vec<_> = whole.o.values(batch, row, head).collect();
            outputs.o.set_row(batch, row, head, &values);
        }
        outputs.lse.inner_mut()[10..20].copy_from_slice(&whole.lse.inner()[10..20]);
        let some = Reference { rows };
        assert!(judge(&case, &some, &outputs).is_err());
        outputs.partial = true;
        assert!(judge(&case, &some, &outputs).is_ok());
    }
}
