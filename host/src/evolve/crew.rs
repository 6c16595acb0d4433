//! Several devices at work at the same time.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::device::Device;

/// A device that may be handed to another thread.
pub type Hand = Box<dyn Device + Send>;

/// Has every job done by one of the devices. Each takes the next job when it is free, so that none has two at a time; none
/// takes one once `stop` says so or a result could not be kept. Results are kept as they come, with the job's number, those
/// of jobs that were under way then, too; the first error is returned.
pub(super) fn share_out<J: Sync, A: Send, E>(
    first: &mut dyn Device,
    others: &mut [Hand],
    jobs: &[J],
    stop: impl Fn() -> bool + Sync,
    work: impl Fn(&mut dyn Device, &J) -> A + Sync,
    mut keep: impl FnMut(usize, A) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let take = || {
        if stop() {
            return None;
        }
        let number = next.fetch_add(1, Ordering::Relaxed);
        jobs.get(number).map(|job| (number, job))
    };
    let (take, work) = (&take, &work);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for device in others {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Some((number, job)) = take() {
                    // The receiver is there until every sender is gone.
                    let _ = sender.send((number, work(device.as_mut(), job)));
                }
            });
        }
        let mut outcome = Ok(());
        let mut keep = |(number, result)| {
            if let Err(error) = keep(number, result) {
                next.store(jobs.len(), Ordering::Relaxed);
                if outcome.is_ok() {
                    outcome = Err(error);
                }
            }
        };
        while let Some((number, job)) = take() {
            keep((number, work(first, job)));
            receiver.try_iter().for_each(&mut keep);
        }
        drop(sender);
        receiver.iter().for_each(&mut keep);
        outcome
    })
}

/// Results on their way into the order of the jobs.
pub(super) struct InOrder<A> {
    waiting: BTreeMap<usize, A>,
    next: usize,
}

impl<A> InOrder<A> {
    pub(super) fn new() -> Self {
        Self { waiting: BTreeMap::new(), next: 0 }
    }

    /// Takes a result and keeps what the order allows. After an error nothing is kept any more.
    pub(super) fn put<E>(
        &mut self,
        number: usize,
        result: A,
        mut keep: impl FnMut(A) -> Result<(), E>,
    ) -> Result<(), E> {
        self.waiting.insert(number, result);
        while let Some(result) = self.waiting.remove(&self.next) {
            keep(result)?;
            self.next += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        fs,
        path::Path,
        sync::atomic::AtomicBool,
        time::{Duration, Instant},
    };

    use spec::Problem;

    use super::*;
    use crate::{
        cases::Case,
        device::{Correctness, Description, Failure, Samples, Subject, TimingPlan, replay::Replay},
        evolve::{
            earlier::Earlier,
            engine::{Run, evolve},
            journal::Journal,
            outcome::Outcome,
            settings::{Lab, Peers, Settings},
            tests::{cases, record, run_on, space},
        },
        record::{fixture, log::Log},
    };

    fn replay() -> Replay {
        Replay::new(&fixture::sweep(1, 0.01, 1))
    }

    /// Milliseconds that jobs take: the first longest, so that they end in another order than they begin.
    const JOBS: [u64; 8] = [120, 10, 10, 60, 10, 10, 60, 10];

    #[test]
    fn results_can_be_put_in_order_and_no_device_has_two_jobs() {
        let mut others: Vec<Hand> = vec![Box::new(replay()), Box::new(replay())];
        let busy: Vec<(usize, AtomicBool)> =
            others.iter().map(|device| (address(device.as_ref()), AtomicBool::new(false))).collect();
        let (mut came, mut kept) = (vec![], vec![]);
        let mut order = InOrder::new();
        let work = |device: &mut dyn Device, job: &u64| {
            let of = busy.iter().find(|(of, _)| *of == address(device)).map(|(_, busy)| busy);
            assert!(of.is_none_or(|busy| !busy.swap(true, Ordering::SeqCst)), "two at a time");
            thread::sleep(Duration::from_millis(*job));
            of.inspect(|busy| busy.store(false, Ordering::SeqCst));
            of.is_some()
        };
        let begun = Instant::now();
        let done = share_out(
            &mut replay(),
            &mut others,
            &JOBS,
            || false,
            work,
            |number, elsewhere| {
                came.push(number);
                order.put(number, (JOBS[number], elsewhere), |result| {
                    kept.push(result);
                    Ok::<_, ()>(())
                })
            },
        );
        assert_eq!(done, Ok(()));
        assert!(!came.is_sorted(), "{came:?}");
        assert_eq!(kept.iter().map(|(job, _)| *job).collect::<Vec<_>>(), JOBS);
        assert!(kept.iter().any(|(_, elsewhere)| *elsewhere) && kept.iter().any(|(_, elsewhere)| !elsewhere));
        assert!(begun.elapsed() < Duration::from_millis(JOBS.iter().sum()), "{:?}", begun.elapsed());
    }

    #[test]
    fn nothing_is_kept_after_what_could_not_be_kept() {
        let mut order = InOrder::new();
        let mut kept = vec![];
        let mut put = |number: usize, works: bool| {
            order.put(number, number, |number| {
                if works {
                    kept.push(number);
                    return Ok(());
                }
                Err("full")
            })
        };
        assert_eq!((put(1, true), put(0, true), put(3, true)), (Ok(()), Ok(()), Ok(())));
        assert_eq!((put(2, false), put(4, true)), (Err("full"), Ok(())));
        assert_eq!(kept, [0, 1]);
    }

    fn address(device: &dyn Device) -> usize {
        std::ptr::from_ref(device).cast::<()>() as usize
    }

    #[test]
    fn an_error_of_keeping_ends_it_and_a_stop_keeps_what_was_begun() {
        let mut others: Vec<Hand> = vec![Box::new(replay())];
        let begun = AtomicUsize::new(0);
        let work = |_: &mut dyn Device, _: &u64| {
            thread::sleep(Duration::from_millis(1));
            begun.fetch_add(1, Ordering::SeqCst)
        };
        let mut run = |stop_at: usize, fail_at: usize| {
            begun.store(0, Ordering::SeqCst);
            let mut kept = 0;
            let stop = || begun.load(Ordering::SeqCst) >= stop_at;
            let done = share_out(&mut replay(), &mut others, &[0; 100], stop, work, |_, _| {
                kept += 1;
                if kept == fail_at { Err("full") } else { Ok(()) }
            });
            (done, kept)
        };
        let (done, kept) = run(usize::MAX, 3);
        assert!(done == Err("full") && kept < 100, "{kept}");
        assert_eq!(kept, begun.load(Ordering::SeqCst), "what was under way is kept too");
        assert_eq!(run(usize::MAX, 0), (Ok(()), 100));
        let (done, kept) = run(5, 0);
        assert!(done.is_ok() && (5..=7).contains(&kept), "{kept}");
    }

    /// A replay that takes its time, another one for each variant and device.
    #[derive(Clone)]
    struct Slow {
        replay: Replay,
        description: Description,
        pace: usize,
    }

    impl Device for Slow {
        fn description(&self) -> &Description {
            &self.description
        }

        fn check(&mut self, subject: &Subject, cases: &[Case]) -> Result<Correctness, Failure> {
            thread::sleep(Duration::from_millis(((subject.variant.to_string().len() * self.pace) % 7) as u64));
            self.replay.check(subject, cases)
        }

        fn time(&mut self, subjects: &[Subject], plan: &TimingPlan) -> Result<Vec<Samples>, Failure> {
            self.replay.time(subjects, plan)
        }
    }

    struct Crew(Vec<Slow>);

    impl Lab for Crew {
        fn open(&mut self) -> Result<Box<dyn Device>, Failure> {
            Ok(Box::new(self.0[0].clone()))
        }

        fn others(&mut self) -> Result<Vec<Hand>, Failure> {
            Ok(self.0[1..].iter().map(|device| Box::new(device.clone()) as Hand).collect())
        }

        fn peers(&mut self, _: &Problem) -> Peers {
            Peers::default()
        }
    }

    /// A run on three devices, the journal's text, and the GPUs that trials ran on; GPUs are taken out of the first two.
    fn run(path: &Path, resume: bool, paces: [usize; 3]) -> (Outcome, String, Vec<Option<String>>) {
        run_until(None, path, resume, paces)
    }

    fn run_until(
        deadline: Option<Instant>,
        path: &Path,
        resume: bool,
        paces: [usize; 3],
    ) -> (Outcome, String, Vec<Option<String>>) {
        let replay = Replay::new(record());
        let device = |(number, pace): (usize, usize)| {
            let description = Description { uuid: format!("GPU-{number}"), ..replay.description().clone() };
            Slow { replay: replay.clone(), description, pace }
        };
        let run = Run {
            settings: &Settings { trials: 16, ..Settings::default() },
            space: &space(record()),
            source: &mut replay.clone(),
            lab: &mut Crew(paces.into_iter().enumerate().map(device).collect()),
            cases: &cases(),
            earlier: &Earlier::default(),
            deadline,
            progress: &mut |_| (),
        };
        let mut outcome = evolve(run, |header| Ok(Journal::open(path, header, resume)?)).unwrap();
        let lines = Log::open(path).unwrap().1;
        let of_try = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let journal: Vec<String> = lines
            .iter()
            .map(of_try)
            .map(|mut line| {
                if let Some(answer) = line["answer"].as_object_mut() {
                    answer.remove("gpu");
                }
                line.to_string()
            })
            .collect();
        let gpus = outcome.trials.iter_mut().map(|trial| trial.gpu.take()).collect();
        (outcome, journal.join("\n"), gpus)
    }

    #[test]
    fn a_run_on_several_devices_depends_on_none_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (outcome, journal, gpus) = run(&path("a"), false, [3, 5, 1]);
        assert_eq!(outcome.budget.spent, 16);
        assert_eq!(gpus[0], None, "the first incumbent is timed before there is a crew");
        let used: HashSet<_> = gpus[1..].iter().map(|gpu| gpu.clone().unwrap()).collect();
        assert!(used.len() > 1, "{used:?}");
        let (again, same, _) = run(&path("b"), false, [1, 0, 6]);
        assert_eq!((&again, &same), (&outcome, &journal));

        let bytes = fs::read(path("a")).unwrap();
        for cut in (1..10).map(|i| bytes.len() * i / 10) {
            fs::write(path("a"), &bytes[..cut]).unwrap();
            let (resumed, same, _) = run(&path("a"), true, [2, 4, 6]);
            assert_eq!((&resumed, &same), (&outcome, &journal), "cut at byte {cut}");
        }
    }

    #[test]
    fn a_run_on_fewer_devices_is_not_resumed_on_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        run(&path, false, [0; 3]);
        let replay = Replay::new(record());
        let settings = Settings { trials: 16, ..Settings::default() };
        let error = run_on(replay.clone(), &mut replay.clone(), &space(record()), &settings, Some((&path, true)));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the journal's others is ") && error.ends_with("it cannot be resumed"), "{error}");
    }

    #[test]
    fn a_time_limit_keeps_what_was_measured_and_a_resumed_run_agrees() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut stopped = 0;
        for milliseconds in [0, 5, 10, 15, 20, 30, 40] {
            let _ = fs::remove_file(&path);
            let deadline = Some(Instant::now() + Duration::from_millis(milliseconds));
            let (outcome, journal, _) = run_until(deadline, &path, false, [3, 5, 1]);
            stopped += usize::from(outcome.notes.iter().any(|note| note.ends_with("the time was up")));
            let (resumed, same, _) = run(&path, true, [3, 5, 1]);
            assert_eq!((&resumed, &same), (&outcome, &journal), "{milliseconds} ms");
        }
        assert!(stopped > 1, "{stopped}");
    }
}
