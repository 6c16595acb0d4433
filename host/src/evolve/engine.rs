//! A run from its A/A test to its claims.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use spec::{Family, Variant};

use super::{
    EvolveError,
    bench::{Bench, Built, Purpose, Tried},
    budget::{Budget, Reason},
    candidate::Candidate,
    claims::{Claim, Finding, claims},
    earlier::Earlier,
    insight::Insights,
    journal::{Header, Journal},
    outcome::{self, Outcome, Overturned},
    population::elites,
    proposer::{Declined, Reply},
    settings::{Cases, Lab, Peers, Settings},
    source::{Source, gate},
    space::Space,
    strategy::Context,
    trial::{Identity, Operator, Proposal, Refusal, Trial, Verdict},
};
use crate::{
    device::{Correctness, Failure, Samples},
    measure::{
        noise::NoiseFloor,
        sittings::Sittings,
        statistics::{self, Interval},
    },
};

/// What a run tells while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// The A/A test is done.
    Noise(&'a NoiseFloor),
    /// A generation begins.
    Generation(u32),
    /// A trial was made; the fastest so far takes `best_us`.
    Trial {
        /// The trial.
        trial: &'a Trial,
        /// Estimated microseconds of the fastest.
        best_us: f64,
    },
    /// A candidate was refused.
    Refused(&'a Refusal),
    /// The winner is being confirmed.
    Confirming(&'a Trial),
}

/// Everything a run needs.
pub struct Run<'a> {
    /// How it is started.
    pub settings: &'a Settings,
    /// What may be proposed.
    pub space: &'a Space,
    /// Where compiled variants come from.
    pub source: &'a mut dyn Source,
    /// Where trials run.
    pub lab: &'a mut dyn Lab,
    /// What is checked.
    pub cases: &'a Cases,
    /// What is known from before.
    pub earlier: &'a Earlier,
    /// When the search ends, even amid a trial. The winner is confirmed afterwards.
    pub deadline: Option<Instant>,
    /// Told what happens.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
}

/// Runs an evolution; `journal` opens the journal once it is known what the run is.
pub fn evolve(
    run: Run<'_>,
    journal: impl FnOnce(&Header) -> Result<Journal, EvolveError>,
) -> Result<Outcome, EvolveError> {
    let Run { settings, space, source, lab, cases, earlier, deadline, progress } = run;
    let (mut bench, header) = Bench::new(space, source, lab, cases, settings, earlier, journal)?;
    bench.limit(deadline);
    let mut engine = Engine {
        settings,
        earlier,
        bench,
        progress,
        budget: Budget::new(settings.trials),
        trials: Vec::new(),
        refusals: Vec::new(),
        tried: HashSet::new(),
        tried_rewritten: HashSet::new(),
        measured: HashMap::new(),
        quarantined: HashMap::new(),
        to_first: HashMap::new(),
        notes: Vec::new(),
        generation: 0,
        next_number: 0,
    };
    let (first, noise) = engine.found()?;
    match engine.search(&first, &noise) {
        Err(EvolveError::TimeUp) => engine.stop_in_time()?,
        searched => searched?,
    }
    // Conclusions take the time they take.
    engine.bench.limit(None);
    engine.conclude(header, &first, noise)
}

struct Engine<'a> {
    settings: &'a Settings,
    earlier: &'a Earlier,
    bench: Bench<'a>,
    progress: &'a mut dyn FnMut(Progress<'_>),
    budget: Budget,
    trials: Vec<Trial>,
    refusals: Vec<Refusal>,
    /// Variants of the project's own source that were tried.
    tried: HashSet<Variant>,
    /// Candidates of rewritten sources that were tried.
    tried_rewritten: HashSet<Candidate>,
    /// Which trial measured an identity.
    measured: HashMap<Identity, usize>,
    /// Whose identity a device refused, and why: it is not run again.
    quarantined: HashMap<Identity, (Candidate, Failure)>,
    /// Log-ratios to the first incumbent, one per time a trial was measured again.
    to_first: HashMap<usize, Vec<f64>>,
    notes: Vec<String>,
    generation: u32,
    next_number: usize,
}

/// A candidate that may be checked and timed.
struct Ready {
    proposal: Proposal,
    identity: Identity,
    built: Built,
}

impl Engine<'_> {
    /// Finds the first incumbent and times it against itself.
    fn found(&mut self) -> Result<(Trial, NoiseFloor), EvolveError> {
        let mut rng = self.rng();
        let centres: Vec<Variant> = Family::ALL.iter().rev().filter_map(|f| self.bench.space.central(*f)).collect();
        let mut next = centres.into_iter().map(|variant| (variant, Operator::Central)).collect::<Vec<_>>().into_iter();
        while self.budget.left() > 0 {
            let Some((variant, operator)) = next.next().or_else(|| {
                let drawn = super::genome::fresh(self.bench.space, &self.tried, &mut rng);
                drawn.map(|variant| (variant, Operator::Draw))
            }) else {
                break;
            };
            let proposal = Proposal { variant, operator, parents: vec![] };
            for ready in self.admit(vec![proposal])? {
                match self.noise_of(&ready)? {
                    Ok((correctness, noise, us)) => {
                        let one = Interval { low: 1.0, estimate: 1.0, high: 1.0 };
                        (self.progress)(Progress::Noise(&noise));
                        let trial = self.accept(ready, correctness, true, one, us, None)?;
                        return Ok((trial, noise));
                    }
                    Err(failure) => self.quarantine(ready, failure)?,
                }
            }
        }
        Err(EvolveError::NoIncumbent(match self.refusals.last() {
            Some(refusal) => format!("the last of {} was refused: {}", self.refusals.len(), refusal.why),
            None => "the space is empty".into(),
        }))
    }

    fn noise_of(&mut self, ready: &Ready) -> Result<Result<(Correctness, NoiseFloor, f64), Failure>, EvolveError> {
        let candidate = ready.proposal.candidate();
        let correctness = match self.bench.check(&candidate, true)? {
            Ok(correctness) => correctness,
            Err(failure) => return Ok(Err(failure)),
        };
        let sitting = |sitting| Purpose::Noise { sitting };
        let samples = match self.bench.sittings(sitting, &[candidate; 2], self.sittings())? {
            Ok(samples) => samples,
            Err(failure) => return Ok(Err(failure)),
        };
        let (a, b) = (&samples[0], &samples[1]);
        Ok(NoiseFloor::of(a, b)
            .map(|noise| (correctness, noise, statistics::median(&[a.hot_us(), b.hot_us()].concat())))
            .map_err(|none| Failure::Launch(none.to_string())))
    }

    /// How many sittings, and rounds of each, the A/A test and the claims take.
    fn sittings(&self) -> [u32; 2] {
        [self.settings.sittings, self.settings.sitting_rounds]
    }

    /// Generations until the budget is spent, the space exhausted or the time up.
    fn search(&mut self, first: &Trial, noise: &NoiseFloor) -> Result<(), EvolveError> {
        let mut strategy = self.settings.strategy();
        let population = self.settings.population.max(1);
        while self.budget.left() > 0 {
            (self.progress)(Progress::Generation(self.generation));
            let insights = self.insights(noise);
            let mut rng = self.rng();
            let elites = self.elites();
            let device = self.bench.description().clone();
            let context = Context {
                space: self.bench.space,
                tried: &self.tried,
                elites: &elites,
                insights: &insights,
                generation: self.generation,
                trials: &self.trials,
                refusals: &self.refusals,
                device: &device,
            };
            // The first incumbent is one of the first generation.
            let count = if self.generation == 0 { (population - 1).max(1) } else { population };
            let count = count.min(self.budget.left()) as usize;
            let reply = match strategy.outside() {
                Some(outside) => self.bench.consult(outside, &context, count)?,
                None => Reply::default(),
            };
            let mut proposals = reply.proposals;
            // A program outside that names what cannot be tried must not keep a run from its end.
            let usable = |proposal: &&Proposal| {
                !self.was_tried(&proposal.candidate()) && context.space.admit(&proposal.variant).is_ok()
            };
            let missing = count.saturating_sub(proposals.iter().filter(usable).count());
            proposals.extend(match self.generation {
                _ if missing == 0 => vec![],
                0 => strategy.open(&context, missing, &mut rng),
                _ => strategy.propose(&context, missing, &mut rng),
            });
            for Declined { reason, why } in reply.declined {
                self.set_aside(None, reason, why)?;
            }
            if proposals.is_empty() {
                self.notes.push(format!("stopped after {} trials: no untried variant is left", self.budget.spent));
                break;
            }
            let mut ready = self.admit(proposals)?;
            if self.bench.has_crew() {
                self.bench.check_time()?;
                ready = self.attempt_together(ready)?;
            }
            for ready in ready {
                self.bench.check_time()?;
                self.attempt(ready)?;
            }
            self.check_elites()?;
            self.measure_elites(first)?;
            self.generation += 1;
        }
        if self.budget.left() == 0 && self.budget.spent < self.budget.trials {
            self.notes.push(format!("stopped after {} trials: too many candidates were refused", self.budget.spent));
        }
        Ok(())
    }

    /// Ends the search, for good: a resumed run ends it here, too.
    fn stop_in_time(&mut self) -> Result<(), EvolveError> {
        self.bench.state_time_up()?;
        self.notes.push(format!("stopped after {} trials: the time was up", self.budget.spent));
        Ok(())
    }

    fn was_tried(&self, candidate: &Candidate) -> bool {
        match candidate.edit {
            None => self.tried.contains(&candidate.variant),
            Some(_) => self.tried_rewritten.contains(candidate),
        }
    }

    /// What of these may be checked: not tried before, legal, compiled, past the compiler gate, of an identity of its own.
    fn admit(&mut self, proposals: Vec<Proposal>) -> Result<Vec<Ready>, EvolveError> {
        let mut legal = Vec::new();
        for proposal in proposals {
            let candidate = proposal.candidate();
            let new = match candidate.edit {
                None => self.tried.insert(candidate.variant),
                Some(_) => self.tried_rewritten.insert(candidate),
            };
            if !new {
                self.set_aside(Some(candidate), Reason::Duplicate, "it was proposed before".into())?;
                continue;
            }
            match self.bench.space.admit(&candidate.variant) {
                Ok(geometry) => legal.push((proposal, geometry)),
                Err(failure) => self.refuse(candidate, &failure)?,
            }
        }
        let candidates: Vec<Candidate> = legal.iter().map(|(proposal, _)| proposal.candidate()).collect();
        if candidates.is_empty() {
            return Ok(vec![]);
        }
        let mut ready: Vec<Ready> = Vec::new();
        for ((proposal, geometry), built) in legal.into_iter().zip(self.bench.compile(&candidates)?) {
            let gated = built.and_then(|built| match &built.facts {
                Some(facts) => gate(facts).map(|()| built),
                None => Ok(built),
            });
            match gated {
                Ok(built) => {
                    let identity = Identity { sha256: built.sha256.clone(), geometry };
                    ready.push(Ready { proposal, identity, built });
                }
                Err(failure) => self.refuse(proposal.candidate(), &failure)?,
            }
        }
        Ok(ready)
    }

    /// A candidate that is to be measured; one that needs no measurement of its own, or fails before it, is set aside.
    fn unsettled(&mut self, ready: Ready) -> Result<Option<Ready>, EvolveError> {
        let candidate = ready.proposal.candidate();
        if let Some((other, failure)) = self.quarantined.get(&ready.identity) {
            let why = format!("its code and launch are those of {other}, which was refused: {failure}");
            self.set_aside(Some(candidate), Reason::of(failure), why)?;
            return Ok(None);
        }
        if let Some(number) = self.measured.get(&ready.identity) {
            let why = format!("its code and launch are those of trial {number}, whose measurement it shares");
            self.set_aside(Some(candidate), Reason::Shared, why)?;
            return Ok(None);
        }
        if let Err(failure) = self.bench.rehearse(&candidate)? {
            self.quarantine(ready, failure)?;
            return Ok(None);
        }
        Ok(Some(ready))
    }

    /// Tries candidates at the same time, all against the incumbent that there is before any of them, and settles them in the
    /// order they were proposed in. Returns those of the same identity as another of them: their turn is after it.
    fn attempt_together(&mut self, ready: Vec<Ready>) -> Result<Vec<Ready>, EvolveError> {
        let (mut together, mut later) = (Vec::new(), Vec::new());
        let mut identities = HashSet::new();
        for ready in ready {
            if !identities.insert(ready.identity.clone()) {
                later.push(ready);
            } else {
                together.extend(self.unsettled(ready)?);
            }
        }
        let best = &self.trials[elites(&self.trials, 1)[0]];
        let (incumbent, incumbent_us) = (best.candidate(), best.us);
        let candidates: Vec<Candidate> = together.iter().map(|ready| ready.proposal.candidate()).collect();
        let tried = self.bench.try_all(incumbent, &candidates, self.settings.rounds)?;
        let made = tried.len();
        for (ready, Tried { gpu, result }) in together.into_iter().zip(tried) {
            let timed = result.and_then(|(correctness, samples)| Ok((correctness, ratio(&samples)?)));
            self.settle(ready, timed, incumbent_us, Some(gpu))?;
        }
        if made < candidates.len() { Err(EvolveError::TimeUp) } else { Ok(later) }
    }

    /// Checks a candidate and times it against the incumbent.
    fn attempt(&mut self, ready: Ready) -> Result<(), EvolveError> {
        let Some(ready) = self.unsettled(ready)? else { return Ok(()) };
        let candidate = ready.proposal.candidate();
        let correctness = match self.bench.check(&candidate, false)? {
            Ok(correctness) => correctness,
            Err(failure) => return self.quarantine(ready, failure),
        };
        let (incumbent, incumbent_us) = {
            let best = &self.trials[elites(&self.trials, 1)[0]];
            (best.candidate(), best.us)
        };
        let samples = self.bench.time(Purpose::Trial, &[incumbent, candidate], self.settings.rounds)?;
        let timed = samples.and_then(|samples| Ok((correctness, ratio(&samples)?)));
        self.settle(ready, timed, incumbent_us, None)
    }

    /// Makes a trial of a candidate that was timed, or refuses it.
    fn settle(
        &mut self,
        ready: Ready,
        timed: Result<(Correctness, Interval), Failure>,
        incumbent_us: f64,
        gpu: Option<String>,
    ) -> Result<(), EvolveError> {
        match timed {
            Ok((correctness, ratio)) => {
                let trial = self.accept(ready, correctness, false, ratio, incumbent_us * ratio.estimate, gpu)?;
                let best_us = self.trials[elites(&self.trials, 1)[0]].us;
                (self.progress)(Progress::Trial { trial: &trial, best_us });
                Ok(())
            }
            Err(failure) => self.quarantine(ready, failure),
        }
    }

    /// Refuses a candidate for what it did when it ran, and with it whatever has its code and launch.
    fn quarantine(&mut self, ready: Ready, failure: Failure) -> Result<(), EvolveError> {
        let candidate = ready.proposal.candidate();
        self.refuse(candidate, &failure)?;
        self.quarantined.insert(ready.identity, (candidate, failure));
        Ok(())
    }

    fn accept(
        &mut self,
        ready: Ready,
        correctness: Correctness,
        suite: bool,
        ratio: Interval,
        us: f64,
        gpu: Option<String>,
    ) -> Result<Trial, EvolveError> {
        let Ready { proposal, identity, built } = ready;
        let number = self.next_number;
        self.next_number += 1;
        self.bench.state(Verdict::Trial { number, variant: proposal.candidate(), us })?;
        let Proposal { variant, operator, parents } = proposal;
        self.measured.insert(identity.clone(), number);
        self.budget.spend();
        let facts = built.facts;
        let generation = self.generation;
        let trial = Trial {
            number,
            generation,
            variant,
            operator,
            parents,
            identity,
            facts,
            correctness,
            suite,
            ratio,
            us,
            gpu,
        };
        self.trials.push(trial.clone());
        Ok(trial)
    }

    fn refuse(&mut self, candidate: Candidate, failure: &Failure) -> Result<(), EvolveError> {
        self.set_aside(Some(candidate), Reason::of(failure), failure.to_string())
    }

    fn set_aside(&mut self, candidate: Option<Candidate>, reason: Reason, why: String) -> Result<(), EvolveError> {
        self.budget.refuse(reason);
        self.note_refusal(Refusal { generation: self.generation, variant: candidate, reason, why })
    }

    fn note_refusal(&mut self, refusal: Refusal) -> Result<(), EvolveError> {
        (self.progress)(Progress::Refused(&refusal));
        self.bench.state(Verdict::Refused(refusal.clone()))?;
        self.refusals.push(refusal);
        Ok(())
    }

    /// Runs the whole suite on elites that only passed the gate; those that fail lose their place and their trial.
    fn check_elites(&mut self) -> Result<(), EvolveError> {
        loop {
            let unchecked = elites(&self.trials, self.settings.population.max(1) as usize)
                .into_iter()
                .find(|&i| !self.trials[i].suite);
            let Some(i) = unchecked else { return Ok(()) };
            let candidate = self.trials[i].candidate();
            match self.bench.check(&candidate, true)? {
                Ok(correctness) => {
                    self.trials[i].correctness = correctness;
                    self.trials[i].suite = true;
                }
                Err(failure) => {
                    let identity = self.trials.remove(i).identity;
                    let refusal = Refusal::new(self.generation, candidate, &failure);
                    self.budget.give_back(refusal.reason);
                    self.note_refusal(refusal)?;
                    self.quarantined.insert(identity, (candidate, failure));
                }
            }
        }
    }

    /// Times the elites again, all against the first incumbent. What selected them counts no longer.
    fn measure_elites(&mut self, first: &Trial) -> Result<(), EvolveError> {
        let others = self.other_elites(first);
        if others.is_empty() {
            return Ok(());
        }
        let candidates = self.against(first, &others);
        match self.bench.time(Purpose::Elites(self.generation), &candidates, self.settings.rounds)? {
            Ok(samples) => {
                for (&i, of) in others.iter().zip(&samples[1..]) {
                    let trial = &mut self.trials[i];
                    if let Ok(ratio) = statistics::paired(&of.hot_us, &samples[0].hot_us, 0.95) {
                        let ratios = self.to_first.entry(trial.number).or_default();
                        ratios.push(ratio.estimate.ln());
                        trial.us = first.us * statistics::median(ratios).exp();
                    }
                }
            }
            Err(failure) => self.notes.push(format!(
                "generation {}: the elites could not be timed again, their first times stand: {failure}",
                self.generation
            )),
        }
        Ok(())
    }

    /// Times the elites and the first incumbent once more, in sittings of their own, and returns their numbers. Only these
    /// sittings count, and only who took part in them can win: the fastest of many single looks is mostly a lucky one.
    fn finalists(&mut self, first: &Trial) -> Result<Vec<usize>, EvolveError> {
        let others = self.other_elites(first);
        let candidates = self.against(first, &others);
        let [sittings, rounds] = [self.settings.sittings.div_ceil(2), self.settings.sitting_rounds];
        if !others.is_empty() {
            match self.bench.sittings(|sitting| Purpose::Final { sitting }, &candidates, [sittings, rounds])? {
                Ok(samples) => {
                    let first_us = samples[0].hot_medians();
                    for (&i, of) in others.iter().zip(&samples[1..]) {
                        let ratios: Vec<f64> = of.hot_medians().iter().zip(&first_us).map(|(us, of)| us / of).collect();
                        self.trials[i].us = first.us * statistics::median(&ratios);
                    }
                }
                Err(failure) => {
                    self.notes.push(format!("the elites could not be timed once more, earlier times choose: {failure}"))
                }
            }
        }
        Ok(others.iter().map(|&i| self.trials[i].number).chain([first.number]).collect())
    }

    /// Indices of the elites other than the first incumbent.
    fn other_elites(&self, first: &Trial) -> Vec<usize> {
        let elites = elites(&self.trials, self.settings.population.max(1) as usize);
        elites.into_iter().filter(|&i| self.trials[i].number != first.number).collect()
    }

    /// The first incumbent and what these trials tried.
    fn against(&self, first: &Trial, others: &[usize]) -> Vec<Candidate> {
        std::iter::once(first.candidate()).chain(others.iter().map(|&i| self.trials[i].candidate())).collect()
    }

    /// Picks the winner and states what can be claimed of it.
    fn conclude(mut self, run: Header, first: &Trial, noise: NoiseFloor) -> Result<Outcome, EvolveError> {
        self.check_elites()?;
        let mut finalists = self.finalists(first)?;
        let mut peers = self.bench.peers()?;
        let mut overturned = None;
        let mut choice = 0;
        let (winner, correctness, samples) = loop {
            let left: Vec<Trial> =
                self.trials.iter().filter(|trial| finalists.contains(&trial.number)).cloned().collect();
            let winner = left[elites(&left, 1)[0]].clone();
            (self.progress)(Progress::Confirming(&winner));
            match self.confirm(&winner, first, choice)? {
                Ok((correctness, samples)) => {
                    match slower_than_first(&samples, &peers, &noise) {
                        Some(claim) => {
                            overturned = Some(Overturned { number: winner.number, claim });
                            finalists = vec![first.number];
                        }
                        None => break (winner, correctness, samples),
                    };
                }
                Err(failure) if winner.number != first.number => {
                    self.trials.retain(|trial| trial.number != winner.number);
                    self.budget.give_back(Reason::of(&failure));
                    self.note_refusal(Refusal::new(self.generation, winner.candidate(), &failure))?;
                    finalists.retain(|number| *number != winner.number);
                }
                Err(failure) => return Err(EvolveError::Unconfirmed(failure)),
            }
            choice += 1;
        };
        self.bench.state(Verdict::Winner { number: winner.number, variant: winner.candidate() })?;
        // Others run in a process of their own, so turns cannot be taken: before and after has to do.
        peers.join(self.bench.peers()?);
        let claims = claims(&samples[0], samples.get(1), &peers.peers, &noise).unwrap_or_else(|none| {
            self.notes.push(format!("no claims: {none}"));
            vec![]
        });
        let insights = self.insights(&noise);
        self.check_elites()?;
        let effects = insights.effects(&self.own_trials());
        Ok(Outcome {
            schema: outcome::SCHEMA,
            times: outcome::times(&run.device),
            run,
            space_size: self.bench.space.members().len(),
            noise,
            elites: self.elites().into_iter().map(|(number, _)| number).collect(),
            effects,
            earlier_weight: insights.surrogate().weight_elsewhere(),
            rules: insights.rules,
            budget: self.budget,
            trials: self.trials,
            refusals: self.refusals,
            incumbent: first.number,
            winner: winner.number,
            overturned,
            correctness,
            winner_hot_us: samples[0].hot_us(),
            winner_cold_us: samples[0].cold_us(),
            claims,
            peers,
            executed: vec![],
            notes: self.notes,
        })
    }

    /// The whole suite once more, then sittings of the winner and, unless it is the same, the first incumbent; all in
    /// fresh processes.
    #[allow(clippy::type_complexity, reason = "an answer of the device within one of the journal, as everywhere here")]
    fn confirm(
        &mut self,
        winner: &Trial,
        first: &Trial,
        choice: u32,
    ) -> Result<Result<(Correctness, Vec<Sittings>), Failure>, EvolveError> {
        self.bench.leave_process();
        let correctness = match self.bench.check(&winner.candidate(), true)? {
            Ok(correctness) => correctness,
            Err(failure) => return Ok(Err(failure)),
        };
        let subjects = [winner.candidate(), first.candidate()];
        let subjects = if winner.number == first.number { &subjects[..1] } else { &subjects };
        let purpose = |sitting| Purpose::Claim { choice, sitting };
        let samples = self.bench.sittings(purpose, subjects, self.sittings())?;
        Ok(samples.map(|samples| (correctness, samples)))
    }

    fn elites(&self) -> Vec<(usize, Variant)> {
        elites(&self.trials, self.settings.population.max(1) as usize)
            .into_iter()
            .map(|i| (self.trials[i].number, self.trials[i].variant))
            .collect()
    }

    fn insights(&self, noise: &NoiseFloor) -> Insights {
        Insights::learn(&self.own_trials(), &self.refusals, noise.sitting, self.earlier)
    }

    /// Trials of the project's own source: how fast a rewritten one is says nothing of the genes.
    fn own_trials(&self) -> Vec<Trial> {
        self.trials.iter().filter(|trial| trial.candidate().edit.is_none()).cloned().collect()
    }

    /// Each generation draws from a stream of its own, so that one more draw in one changes no other.
    fn rng(&self) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
        rng.set_stream(u64::from(self.generation) + 1);
        rng
    }
}

/// The claim that a choice is slower than the first incumbent, if that is what its samples show.
fn slower_than_first(samples: &[Sittings], peers: &Peers, noise: &NoiseFloor) -> Option<Claim> {
    let [choice, first] = samples else { return None };
    let claims = claims(choice, Some(first), &peers.peers, noise).ok()?;
    claims.into_iter().next().filter(|claim| claim.finding == Finding::Slower)
}

/// Of the second one's time to the first one's.
fn ratio(samples: &[Samples]) -> Result<Interval, Failure> {
    statistics::paired(&samples[1].hot_us, &samples[0].hot_us, 0.95).map_err(|none| Failure::Launch(none.to_string()))
}
