//! A program outside is asked first. What it does not name is chosen by a strategy of our own, so that a run goes on
//! whatever the program does.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;

use super::{Context, Outside, Strategy};
use crate::{
    child::{Child, Silence},
    evolve::{
        proposer::{Reply, Request},
        settings::Proposer,
        trial::Proposal,
    },
};

/// How long a program may take to end once it is not needed any more.
const END: Duration = Duration::from_secs(2);

pub(in crate::evolve) struct External {
    proposer: Proposer,
    own: Box<dyn Strategy>,
    /// `None` before the first question, and after a failure.
    child: Option<Child>,
}

impl External {
    pub(in crate::evolve) fn new(proposer: Proposer, own: Box<dyn Strategy>) -> Self {
        Self { proposer, own, child: None }
    }

    fn answer(&mut self, context: &Context<'_>, count: usize, patience: Duration) -> Result<Reply, String> {
        let mut child = match self.child.take() {
            Some(child) => child,
            None => {
                Child::start_line(&self.proposer.command, END).map_err(|error| format!("cannot be started: {error}"))?
            }
        };
        let request = serde_json::to_vec(&Request::new(context, count)).map_err(|error| error.to_string())?;
        child.say(request);
        let line = child.line(patience).map_err(|silence| {
            child.kill();
            match silence {
                Silence::Late(patience) => format!("gave no answer within {} s", patience.as_secs()),
                Silence::Gone(how) => how,
                Silence::Broken(error) => error.to_string(),
            }
        })?;
        let reply = Reply::read(&line, context, count).inspect_err(|_| child.kill())?;
        self.child = Some(child);
        Ok(reply)
    }
}

impl Strategy for External {
    fn propose(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        self.own.propose(context, count, rng)
    }

    fn open(&self, context: &Context<'_>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Proposal> {
        self.own.open(context, count, rng)
    }

    fn outside(&mut self) -> Option<&mut dyn Outside> {
        Some(self)
    }
}

impl Outside for External {
    /// A program that fails is started again for the next question.
    fn ask(&mut self, context: &Context<'_>, count: usize, deadline: Option<Instant>) -> Option<Reply> {
        let limit = Duration::from_secs(self.proposer.seconds);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match self.answer(context, count, left.map_or(limit, |left| left.min(limit))) {
            Ok(reply) => Some(reply),
            // It was not given the time it may take.
            Err(_) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => None,
            Err(why) => Some(Reply::failed(why)),
        }
    }
}
