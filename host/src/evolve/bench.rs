//! The way to the outside world: every question goes through the journal, every answer is checked before it is believed.

use std::{collections::HashMap, time::Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spec::{DeviceLimits, Variant, legal};

use super::{
    EvolveError,
    candidate::{Candidate, Edit},
    crew::{Hand, InOrder, share_out},
    earlier::Earlier,
    journal::{Header, Journal, Question},
    proposer::Reply,
    sanity::{passed, possible, twice},
    settings::{Cases, Lab, Peers, Settings},
    source::{Compiled, Facts, Rewrite, Source},
    space::Space,
    strategy::{Context, Outside},
    trial::Verdict,
};
use crate::cases::Case;
use crate::device::{Correctness, Description, Device, Failure, Kind, Pace, Samples, Subject, TimingPlan};
use crate::measure::sittings::Sittings;

/// What the journal keeps of a compiled variant: files may move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Built {
    pub(super) sha256: String,
    pub(super) facts: Option<Facts>,
}

/// What came of a candidate that was tried beside others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tried {
    /// UUID of the GPU it ran on.
    pub(super) gpu: String,
    /// How it did, and the times of the incumbent and of itself.
    pub(super) result: Result<(Correctness, Vec<Samples>), Failure>,
}

/// A candidate with the incumbent's code and its own.
type Job<'a> = (&'a Candidate, Result<Vec<Subject>, Failure>);

/// What is timed for: each purpose has noise of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A sitting of the A/A test.
    Noise { sitting: u32 },
    /// A candidate against the incumbent.
    Trial,
    /// The elites of a generation.
    Elites(u32),
    /// A sitting that chooses the winner.
    Final { sitting: u32 },
    /// A sitting behind the claims of the first choice, or of a later one.
    Claim { choice: u32, sitting: u32 },
}

pub(super) struct Bench<'a> {
    pub(super) space: &'a Space,
    source: &'a mut dyn Source,
    lab: &'a mut dyn Lab,
    cases: &'a Cases,
    /// None until it is needed.
    device: Option<Box<dyn Device>>,
    deadline: Option<Instant>,
    others: Vec<Hand>,
    journal: Journal,
    seed: u64,
    /// What trials run on.
    description: Description,
    compiled: HashMap<Candidate, Compiled>,
    /// The text of every rewritten source.
    sources: HashMap<Edit, String>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        space: &'a Space,
        source: &'a mut dyn Source,
        lab: &'a mut dyn Lab,
        cases: &'a Cases,
        settings: &Settings,
        earlier: &Earlier,
        journal: impl FnOnce(&Header) -> Result<Journal, EvolveError>,
    ) -> Result<(Self, Header), EvolveError> {
        let device = lab.open().map_err(EvolveError::Device)?;
        let others = lab.others().map_err(EvolveError::Device)?;
        let header = Header {
            schema: super::journal::SCHEMA,
            problem: *space.problem(),
            space: space.fingerprint(),
            cases: fingerprint(cases)?,
            toolchain: source.toolchain(),
            device: device.description().clone(),
            others: others.iter().map(|device| device.description().clone()).collect(),
            learnt_from: earlier.lessons().to_vec(),
            settings: settings.clone(),
        };
        let journal = journal(&header)?;
        let (compiled, sources, description) = (HashMap::new(), HashMap::new(), header.device.clone());
        let (device, deadline, seed) = (Some(device), None, settings.seed);
        let bench =
            Self { space, source, lab, cases, device, others, deadline, journal, seed, description, compiled, sources };
        Ok((bench, header))
    }

    /// From `deadline` on, questions to the device fail with [`EvolveError::TimeUp`].
    pub(super) fn limit(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Compiles a batch.
    pub(super) fn compile(&mut self, candidates: &[Candidate]) -> Result<Vec<Result<Built, Failure>>, EvolveError> {
        let Self { source, compiled, sources, journal, .. } = self;
        journal.step(&Question::Compile(candidates.to_vec()), || {
            let answers = compile(*source, sources, candidates)?;
            Ok(candidates
                .iter()
                .zip(answers)
                .map(|(candidate, answer)| {
                    let answer = answer?;
                    let built = Built { sha256: answer.sha256.clone(), facts: answer.facts.clone() };
                    compiled.insert(*candidate, answer);
                    Ok(built)
                })
                .collect())
        })
    }

    /// Asks somebody outside for candidates; [`EvolveError::TimeUp`] if there is no answer in time.
    pub(super) fn consult(
        &mut self,
        outside: &mut dyn Outside,
        context: &Context<'_>,
        count: usize,
    ) -> Result<Reply, EvolveError> {
        let question = Question::Propose { generation: context.generation, count };
        if self.journal.was_time_up() == Some(true) {
            return Err(EvolveError::TimeUp);
        }
        let deadline = self.deadline;
        let ask = || outside.ask(context, count, deadline).ok_or(EvolveError::TimeUp);
        let reply = self.journal.step(&question, ask)?;
        self.sources.extend(reply.sources.iter().map(|(edit, text)| (*edit, text.clone())));
        Ok(reply)
    }

    /// Runs a candidate whose source was rewritten on the CPU machine, where a stray access is seen before it does harm.
    /// Where trials run there anyway, and for every other candidate, there is nothing to do.
    pub(super) fn rehearse(&mut self, candidate: &Candidate) -> Result<Result<(), Failure>, EvolveError> {
        let Self { space, source, lab, cases, description, journal, sources, .. } = self;
        let Some(edit) = candidate.edit.filter(|_| description.kind != Kind::Simt) else { return Ok(Ok(())) };
        journal.step(&Question::Rehearse(*candidate), || {
            let text = sources.get(&edit).ok_or(UNKNOWN_EDIT)?;
            let mut run = || {
                let Candidate { variant, .. } = candidate;
                let code = source.rehearsal(Rewrite { family: variant.family(), text }, variant)?;
                let subject =
                    Subject { problem: *space.problem(), variant: *variant, geometry: space.admit(variant)?, code };
                let mut device = lab.cpu_machine()?;
                let cases = fitting(&cases.gate, variant, &device.description().limits);
                passed(device.check(&subject, &cases)?, cases.len()).map(drop)
            };
            Ok(run())
        })
    }

    /// Runs a candidate on the short gate, or on the whole suite.
    pub(super) fn check(
        &mut self,
        candidate: &Candidate,
        whole: bool,
    ) -> Result<Result<Correctness, Failure>, EvolveError> {
        let question = Question::Check { variant: *candidate, whole };
        self.ask(&question, std::slice::from_ref(candidate), |device, subjects, cases| {
            let cases = if whole { &cases.suite } else { &cases.gate };
            let cases = fitting(cases, &candidate.variant, &device.description().limits);
            passed(device.check(&subjects[0], &cases)?, cases.len())
        })
    }

    /// Times candidates in turns.
    pub(super) fn time(
        &mut self,
        purpose: Purpose,
        candidates: &[Candidate],
        rounds: u32,
    ) -> Result<Result<Vec<Samples>, Failure>, EvolveError> {
        let cold = matches!(purpose, Purpose::Claim { .. });
        let plan = TimingPlan { rounds, cold, seed: noise_seed(self.seed, purpose, candidates), pace: Pace::Sustained };
        let question = Question::Time { variants: candidates.to_vec(), plan };
        let problem = *self.space.problem();
        self.ask(&question, candidates, |device, subjects, _| {
            possible(device.time(subjects, &plan)?, subjects.len(), &problem)
        })
    }

    /// Times candidates in as many sittings, each in a fresh process. What is prepared first may have the better of it, so
    /// every other sitting prepares them in reverse.
    pub(super) fn sittings(
        &mut self,
        purpose: impl Fn(u32) -> Purpose,
        candidates: &[Candidate],
        [sittings, rounds]: [u32; 2],
    ) -> Result<Result<Vec<Sittings>, Failure>, EvolveError> {
        let mut all = vec![Sittings::default(); candidates.len()];
        let mut candidates = candidates.to_vec();
        for sitting in 0..sittings {
            self.leave_process();
            let mut samples = match self.time(purpose(sitting), &candidates, rounds)? {
                Ok(samples) => samples,
                Err(failure) => return Ok(Err(failure)),
            };
            if sitting % 2 == 1 {
                samples.reverse();
            }
            candidates.reverse();
            all.iter_mut().zip(samples).for_each(|(of, samples)| of.0.push(samples));
        }
        Ok(Ok(all))
    }

    /// Whether several trials can be made at the same time.
    pub(super) fn has_crew(&self) -> bool {
        !self.others.is_empty()
    }

    /// Runs candidates on the short gate and times those that are right in turns with the incumbent, each candidate on one
    /// device. The answers depend on no order in which devices come to be free. There are fewer than candidates, those of
    /// the first of them, if the time is up, which is written down then.
    pub(super) fn try_all(
        &mut self,
        incumbent: Candidate,
        candidates: &[Candidate],
        rounds: u32,
    ) -> Result<Vec<Tried>, EvolveError> {
        let Self { space, source, lab, cases, device, others, deadline, journal, seed, compiled, sources, .. } = self;
        let plan = |candidate: &Candidate| {
            let seed = noise_seed(*seed, Purpose::Trial, &[incumbent, *candidate]);
            TimingPlan { rounds, cold: false, seed, pace: Pace::Sustained }
        };
        let question = |candidate: &Candidate| Question::Try { variant: *candidate, incumbent, plan: plan(candidate) };
        let questions: Vec<Question> = candidates.iter().map(question).collect();
        let tried = journal.steps(&questions, |known, answer| {
            let first = opened(device, *lab, *deadline)?;
            others.iter_mut().for_each(|device| device.answer_by(*deadline));
            let mut late = false;
            let mut jobs = Vec::new();
            for candidate in &candidates[known..] {
                let subjects = subjects(space, *source, sources, compiled, &[incumbent, *candidate])?;
                jobs.push((candidate, subjects));
            }
            let work = |device: &mut dyn Device, (candidate, subjects): &Job<'_>| {
                let limits = device.description().limits;
                let cases = fitting(&cases.gate, &candidate.variant, &limits);
                let result = twice(device, |device| {
                    let subjects = subjects.as_ref().map_err(Clone::clone)?;
                    let correctness = passed(device.check(&subjects[1], &cases)?, cases.len())?;
                    let samples = device.time(subjects, &plan(candidate))?;
                    Ok((correctness, possible(samples, subjects.len(), space.problem())?))
                });
                Tried { gpu: device.description().uuid.clone(), result }
            };
            let mut order = InOrder::new();
            let mut keep = |tried: Tried| match tried.result {
                Err(failure @ Failure::Device(_)) => Err(EvolveError::Device(failure)),
                // It was not given the time it may take: nothing is known of it, and none after it is an answer.
                Err(Failure::Hang { .. }) if late || passed_by(*deadline) => {
                    late = true;
                    Ok(())
                }
                _ if late => Ok(()),
                _ => answer(tried),
            };
            let in_order = |number, tried| order.put(number, tried, &mut keep);
            share_out(first, others, &jobs, || passed_by(*deadline), work, in_order)
        })?;
        if tried.len() < candidates.len() {
            self.state_time_up()?;
        }
        Ok(tried)
    }

    /// What others take for the problem.
    pub(super) fn peers(&mut self) -> Result<Peers, EvolveError> {
        let Self { journal, lab, space, .. } = self;
        journal.step(&Question::Peers, || Ok(lab.peers(space.problem())))
    }

    /// What trials run on.
    pub(super) fn description(&self) -> &Description {
        &self.description
    }

    /// Goes on in a fresh process, once there is something to do.
    pub(super) fn leave_process(&mut self) {
        self.device = None;
    }

    /// Writes a verdict down.
    pub(super) fn state(&mut self, verdict: Verdict) -> Result<(), EvolveError> {
        Ok(self.journal.state(&Question::Verdict(verdict))?)
    }

    /// [`EvolveError::TimeUp`] if it is; as it was if the journal knows.
    pub(super) fn check_time(&mut self) -> Result<(), EvolveError> {
        let up = self.journal.was_time_up().unwrap_or_else(|| passed_by(self.deadline));
        if up { Err(EvolveError::TimeUp) } else { Ok(()) }
    }

    /// Writes down that the time is up.
    pub(super) fn state_time_up(&mut self) -> Result<(), EvolveError> {
        Ok(self.journal.state(&Question::TimeUp)?)
    }

    /// Asks the device, in a fresh process if it failed by itself, and gives up if that fails too.
    fn ask<A: Serialize + serde::de::DeserializeOwned>(
        &mut self,
        question: &Question,
        candidates: &[Candidate],
        ask: impl Fn(&mut dyn Device, &[Subject], &Cases) -> Result<A, Failure>,
    ) -> Result<Result<A, Failure>, EvolveError> {
        let Self { space, source, lab, cases, device, deadline, journal, compiled, sources, .. } = self;
        if journal.was_time_up() == Some(true) {
            return Err(EvolveError::TimeUp);
        }
        journal.step(question, || {
            let subjects = match subjects(space, *source, sources, compiled, candidates)? {
                Ok(subjects) => subjects,
                Err(failure) => return Ok(Err(failure)),
            };
            let mut answer = ask(opened(device, *lab, *deadline)?, &subjects, cases);
            if let Err(Failure::Device(_)) = answer {
                *device = None;
                answer = ask(opened(device, *lab, *deadline)?, &subjects, cases);
            }
            match answer {
                Err(failure @ Failure::Device(_)) => Err(EvolveError::Device(failure)),
                // It was not given the time it may take: nothing is known of it.
                Err(Failure::Hang { .. }) if passed_by(*deadline) => Err(EvolveError::TimeUp),
                answer => Ok(answer),
            }
        })
    }
}

/// The device, opened if it is not.
fn opened<'d>(
    device: &'d mut Option<Box<dyn Device>>,
    lab: &mut dyn Lab,
    deadline: Option<Instant>,
) -> Result<&'d mut (dyn Device + 'static), EvolveError> {
    let mut open = match device.take() {
        Some(open) => open,
        None => lab.open().map_err(EvolveError::Device)?,
    };
    open.answer_by(deadline);
    Ok(device.insert(open).as_mut())
}

/// Whether it is later than that.
fn passed_by(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

const UNKNOWN_EDIT: EvolveError = EvolveError::Contract("a rewritten source is told before it is used");

/// One answer per candidate: all of the project's own source at once, then those of each rewritten source at once.
fn compile(
    source: &mut dyn Source,
    sources: &HashMap<Edit, String>,
    candidates: &[Candidate],
) -> Result<Vec<Result<Compiled, Failure>>, EvolveError> {
    let mut answers: HashMap<&Candidate, Result<Compiled, Failure>> = HashMap::new();
    while let Some(first) = candidates.iter().find(|candidate| !answers.contains_key(candidate)) {
        let batch: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.edit == first.edit).collect();
        let variants: Vec<Variant> = batch.iter().map(|candidate| candidate.variant).collect();
        let of_batch = match first.edit {
            None => source.compile(&variants),
            Some(edit) => {
                let text = sources.get(&edit).ok_or(UNKNOWN_EDIT)?;
                source.compile_rewritten(Rewrite { family: first.variant.family(), text }, &variants)
            }
        };
        if of_batch.len() != variants.len() {
            return Err(EvolveError::Contract("a source must answer for each variant"));
        }
        answers.extend(batch.into_iter().zip(of_batch));
    }
    Ok(candidates.iter().map(|candidate| answers[candidate].clone()).collect())
}

/// Subjects of candidates, compiled again where only the journal knew them.
fn subjects(
    space: &Space,
    source: &mut dyn Source,
    sources: &HashMap<Edit, String>,
    compiled: &mut HashMap<Candidate, Compiled>,
    candidates: &[Candidate],
) -> Result<Result<Vec<Subject>, Failure>, EvolveError> {
    let mut missing: Vec<Candidate> = candidates.iter().filter(|c| !compiled.contains_key(c)).copied().collect();
    missing.dedup();
    for (candidate, answer) in missing.iter().zip(compile(source, sources, &missing)?) {
        match answer {
            Ok(answer) => compiled.insert(*candidate, answer),
            Err(failure) => return Ok(Err(failure)),
        };
    }
    let subject = |candidate: &Candidate| {
        let variant = candidate.variant;
        Ok(Subject {
            problem: *space.problem(),
            variant,
            geometry: space.admit(&variant)?,
            code: compiled[candidate].code.clone(),
        })
    };
    Ok(candidates.iter().map(subject).collect())
}

/// The cases that a variant claims to do: it may, for one, refuse some strides.
fn fitting(cases: &[Case], variant: &Variant, limits: &DeviceLimits) -> Vec<Case> {
    cases.iter().filter(|case| legal(&case.problem, variant, limits).is_ok()).cloned().collect()
}

/// Noise belongs to a purpose and to the candidate it is about, the last one, whenever its turn comes.
fn noise_seed(seed: u64, purpose: Purpose, candidates: &[Candidate]) -> u64 {
    let about = candidates.last().map(Candidate::to_string).unwrap_or_default();
    let digest = Sha256::new().chain_update(format!("{seed} {purpose:?} {about}")).finalize();
    let mut start = [0; 32];
    start.copy_from_slice(&digest);
    ChaCha8Rng::from_seed(start).next_u64()
}

fn fingerprint(cases: &Cases) -> Result<String, EvolveError> {
    let text = serde_json::to_string(&(&cases.gate, &cases.suite)).map_err(super::journal::JournalError::from)?;
    Ok(Sha256::digest(text)[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}
